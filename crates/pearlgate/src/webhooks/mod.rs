//! What happened to people is told to applications: signed (Standard Webhooks 1.0), each person's events in their order,
//! again and again for three days.
//!
//! * An event is a row that is written in the transaction of the change, with the next number of its person. While nobody
//!   wants to be told of anything, nothing is written.
//! * How far an endpoint has been told of a person is a row, too. One job for each endpoint and person goes on from there,
//!   one event after the other: nothing is overtaken, and nobody waits for somebody else's events.
//! * An event may be told twice, never in another order: its id stays the same.
//! * Receivers are asked through the guard, in a lane of their own: whoever hangs there holds up nothing here.

mod deliver;
mod flow;
mod model;
mod operate;
mod store;

pub use deliver::{Webhooks, handle};
pub use flow::{forget, sweep, tell, tell_of};
pub use model::{EndpointRow, MessageRow, TYPES};
pub use operate::{
    Change, Changed, Cursor, Delivery, Listed, New, Pause, add, add_by, address, change_by, deliveries,
    deliveries_before, events, find, list, pause, remove, remove_by, replay, replay_by, reseal_webhooks,
    resume, rotate,
};
pub use store::STATEMENTS;
