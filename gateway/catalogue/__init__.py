"""Teams, tools, workflows and tasks between the routes and what they rest on."""
