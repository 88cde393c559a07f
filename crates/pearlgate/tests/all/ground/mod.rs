//! What everything stands on: the two databases, their schema, jobs, the trail.

mod audit;
mod audit_forget;
mod audit_whole;
mod database;
mod jobs;
mod limits;
mod schema;
