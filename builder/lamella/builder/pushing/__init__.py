"""A push: survey, upload, publish; the team's cache; differences."""
