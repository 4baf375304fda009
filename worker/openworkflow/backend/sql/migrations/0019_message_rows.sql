-- openworkflow: additive
-- Who is sent a signal is waited for before limits are decided about: see migration 0018.

CREATE TRIGGER openworkflow_message_rows
  AFTER INSERT ON workflow_messages
  FOR EACH STATEMENT EXECUTE FUNCTION openworkflow_rows_wait();
