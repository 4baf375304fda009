"""A trial that becomes a subscription: months of waiting, a decision, a payment that may fail.

Its tests are in test_subscription.py; they take less than a second.
"""

from dataclasses import dataclass

from openworkflow import RetryPolicy, SignalTimeout, Step, workflow


@dataclass(frozen=True)
class Trial:
    customer: str
    price: int


class CardDeclined(Exception):
    """The bank said no, and will say so again."""


@workflow
async def subscription(trial: Trial, step: Step) -> str:
    """Two weeks for free, then a charge each month until the customer cancels."""
    await step.run("welcome", send_mail, trial.customer, "welcome")
    await step.sleep("trial", "14d")
    months = 0
    while True:
        try:
            await step.run("charge", charge, trial, retry=PATIENT)
        except CardDeclined:
            await step.run("sorry", send_mail, trial.customer, "declined")
            return f"ended after {months} months: declined"
        months += 1
        try:
            await step.wait_for_signal("cancel", timeout="30d")
        except SignalTimeout:
            continue
        return f"ended after {months} months: canceled"


PATIENT = RetryPolicy(max_attempts=4, initial="1h", max_delay="1d", non_retryable=(CardDeclined,))


async def send_mail(customer: str, text: str) -> None:
    """Here would be your mail provider."""


async def charge(trial: Trial) -> str:
    """Here would be your payment provider."""
    return f"payment of {trial.customer}"
