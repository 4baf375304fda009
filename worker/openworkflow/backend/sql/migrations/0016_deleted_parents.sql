-- openworkflow: additive
-- A parent that somebody deletes before it has ended leaves no child behind: its children are
-- canceled, as they are when it ends. They went on, or waited for it, for ever.

-- What is known of a child goes with it; as in 0012 but for the children of those that are gone.
CREATE OR REPLACE FUNCTION openworkflow_children_deleted() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  namespace TEXT;
BEGIN
  IF EXISTS (SELECT FROM gone WHERE parent_run_id IS NOT NULL) THEN
    EXECUTE format('DELETE FROM %I.workflow_children
        WHERE id = ANY ($1)', TG_TABLE_SCHEMA)
      USING ARRAY(SELECT id FROM gone WHERE parent_run_id IS NOT NULL);
  END IF;
  IF EXISTS (SELECT FROM gone WHERE is_parent AND completed_at IS NULL) THEN
    FOR namespace IN EXECUTE format('WITH orphaned AS (
        UPDATE %I.workflow_children child SET orphaned = true
          FROM unnest($1, $2) AS parent (id, namespace_id)
         WHERE child.parent_run_id = parent.id AND child.namespace_id = parent.namespace_id
           AND child.status IS NULL AND child.on_close = ''cancel''
        RETURNING child.namespace_id
      )
      SELECT DISTINCT namespace_id FROM orphaned', TG_TABLE_SCHEMA)
      USING ARRAY(SELECT id FROM gone WHERE is_parent AND completed_at IS NULL),
            ARRAY(SELECT namespace_id FROM gone WHERE is_parent AND completed_at IS NULL)
    LOOP
      PERFORM pg_notify('openworkflow_work_' || left(encode(sha256(convert_to(
        TG_TABLE_SCHEMA || '.' || namespace, 'UTF8')), 'hex'), 16), 'orphans');
    END LOOP;
  END IF;
  RETURN NULL;
END
$function$;
