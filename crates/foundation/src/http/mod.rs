//! HTTP that refuses what is ambiguous: strict JSON, problems for everything that goes wrong, deadlines and caps,
//! client addresses from declared proxies alone, answers that browsers cannot misuse.

mod client_address;
mod finish;
mod idempotency;
mod json;
mod server;

pub use client_address::{ClientAddress, OneForAll, Proxies};
pub use finish::{Finish, RequestId, Respond, cross_origin, finish, from_own_page, same_origin};
pub use idempotency::{Claim, Idempotency, IdempotencyKey, Remembered, STATEMENTS, sweep};
pub use json::{Json, OptionalJson, read_body, read_form, read_strict};
pub use server::{Limits, Peer, serve};
