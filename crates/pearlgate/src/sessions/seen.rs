//! When sessions were last seen: noted in memory, written down in batches, never one write for each request. What is
//! lost when the process is killed is a minute of "last seen" and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foundation::db;
use foundation::kernel::{Id, Timestamp};
use foundation::params;

use super::devices::DeviceRow;
use super::model::SessionRow;
use super::store;
use crate::accounts::UserRow;
use crate::app::App;

/// Sessions in one part of the memory: beyond that what is newly seen waits for the next batch. 16 parts of 32 bytes
/// an entry are 32 MB at the very most, with a million sessions seen in one minute.
const MOST: usize = 65_536;
const PARTS: usize = 16;
/// Rows in one transaction: other writers wait for no more.
const BATCH: usize = 500;

/// What was seen since it was last written down.
#[derive(Debug, Default)]
pub struct Seen([Mutex<HashMap<[u8; 16], i64>>; PARTS]);

impl Seen {
    /// A session's token was good just now.
    pub(super) fn note(&self, session: Id<SessionRow>, now: Timestamp) {
        let id = *session.as_bytes();
        // The last byte of an id is random.
        let Some(part) = self.0.get(usize::from(id[15]) % PARTS) else { return };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() < MOST || part.contains_key(&id) {
            part.insert(id, now.micros());
        }
    }

    fn take(&self) -> Vec<([u8; 16], i64)> {
        let part = |part: &Mutex<HashMap<_, _>>| {
            std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut all: Vec<_> = self.0.iter().flat_map(part).collect();
        // In one order everywhere: two servers that write at the same time wait for each other and do not deadlock.
        all.sort_unstable();
        all
    }
}

/// Writes down what was seen. What cannot be written is forgotten: it will be seen again.
///
/// # Errors
/// As every statement.
pub async fn write_down(app: &App) -> db::Result<()> {
    let seen = app.seen.take();
    for batch in seen.chunks(BATCH) {
        let batch = batch.to_vec();
        app.db
            .write(move |tx| {
                for (id, at) in &batch {
                    let row: Option<(Id<UserRow>, Id<DeviceRow>)> = tx.opt(&store::SEEN, params![id, at])?;
                    if let Some((user, device)) = row {
                        tx.execute(&store::DEVICE_SEEN, params![user, device, at])?;
                    }
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}
