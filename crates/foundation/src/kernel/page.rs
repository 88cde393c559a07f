//! Lists come in pages: `?limit=&cursor=` → `{items, next_cursor}`. A cursor carries a MAC: nobody can forge one
//! into a query (Kratos CVE-2026-33503).

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{FieldError, MacKeys, MasterKeys, Problem};

/// How many items a page has when nobody says.
const DEFAULT_LIMIT: u16 = 50;
/// The most that one page gives.
const MAX_LIMIT: u16 = 200;
const TAG: usize = 16;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// What to give as `cursor` for the next page; empty on the last one.
    pub next_cursor: String,
}

/// The query of a list, as it came.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageRequest {
    /// How many items, 1 to 200.
    pub limit: Option<u16>,
    /// The previous page's `next_cursor`.
    pub cursor: Option<String>,
}

/// Makes and checks the cursors of one list.
#[derive(Debug, Clone)]
pub struct CursorKey(MacKeys);

impl CursorKey {
    /// Cursors under the master key.
    pub fn derive(master: &MasterKeys) -> Self {
        Self(MacKeys::derive(master, "cursor"))
    }

    /// The cursor that stands for `position` in `list` (a name that includes whose list it is).
    pub fn issue(&self, list: &str, position: i64) -> String {
        let position = position.to_be_bytes();
        let tag = self.0.current().mac_parts(&[list.as_bytes(), &position]).truncated::<TAG>();
        BASE64URL_NOPAD.encode(&[position.as_slice(), &tag].concat())
    }

    fn read(&self, list: &str, cursor: &str) -> Option<i64> {
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
        let (position, tag) = bytes.split_first_chunk::<8>()?;
        let ours = self.0.all().any(|key| {
            let expected = key.mac_parts(&[list.as_bytes(), position]).truncated::<TAG>();
            expected.as_slice().ct_eq(tag).into()
        });
        ours.then(|| i64::from_be_bytes(*position))
    }

    /// The limit and the position (`start` on the first page) that a request asks for.
    ///
    /// # Errors
    /// 422 for a limit outside 1..=200 or a cursor that is not of this list.
    pub fn open(&self, list: &str, request: &PageRequest, start: i64) -> Result<(u16, i64), Problem> {
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::invalid(vec![FieldError::new(
                "limit",
                "invalid",
                "give a number from 1 to 200",
            )]));
        }
        let position = match request.cursor.as_deref() {
            None | Some("") => start,
            Some(cursor) => self.read(list, cursor).ok_or_else(|| {
                Problem::invalid(vec![FieldError::new(
                    "cursor",
                    "invalid",
                    "give the next_cursor of this list's previous page",
                )])
            })?,
        };
        Ok((limit, position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_33503_a_cursor_cannot_be_forged_or_moved_to_another_list() {
        let key = CursorKey::derive(&MasterKeys::new([3; 32], &[]));
        let cursor = key.issue("activity:usr_a", 42);
        let ask = |list: &str, cursor: &str| {
            key.open(list, &PageRequest { limit: None, cursor: Some(cursor.into()) }, i64::MAX)
        };
        assert_eq!(ask("activity:usr_a", &cursor).unwrap(), (50, 42));
        assert_eq!(ask("activity:usr_b", &cursor).unwrap_err().status, 422);
        for forged in ["x", "' OR 1=1 --", &cursor[1..], &format!("{cursor}A")] {
            assert_eq!(ask("activity:usr_a", forged).unwrap_err().status, 422, "{forged}");
        }
    }

    #[test]
    fn limits_are_limits() {
        let key = CursorKey::derive(&MasterKeys::new([3; 32], &[]));
        for limit in [0, 201, u16::MAX] {
            assert!(key.open("l", &PageRequest { limit: Some(limit), cursor: None }, 0).is_err());
        }
    }
}
