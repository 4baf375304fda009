"""Agents of other libraries whose model requests and tool calls are steps of a workflow.

A module for each library, which is imported by its name and needs the extra of that name:
`openworkflow.agents.pydantic_ai` and `openworkflow.agents.openai_agents`.
"""
