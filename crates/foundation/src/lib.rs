//! What any server of ours stands on: time, chance, ids and secrets (`kernel`), two databases behind one text
//! (`db`), work that survives a crash (`jobs`), other people's machines (`outbound`), how often something may be done
//! (`limits`), mail, an audit trail, HTTP that refuses what is ambiguous. Not one word about accounts.
//!
//! Arrows point down: `kernel ← db ← jobs, audit, outbound ← limits, mail ← http`; a test of the workspace reads the
//! `use` lines and fails on any other.

pub mod audit;
pub mod config;
pub mod db;
pub mod http;
pub mod jobs;
pub mod kernel;
pub mod limits;
pub mod mail;
pub mod outbound;
pub mod telemetry;
