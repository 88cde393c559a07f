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

    /// The cursor that stands for a text in a list that is ordered by texts.
    pub fn issue_text(&self, list: &str, position: &str) -> String {
        let tag =
            self.0.current().mac_parts(&[list.as_bytes(), b"text", position.as_bytes()]).truncated::<TAG>();
        BASE64URL_NOPAD.encode(&[tag.as_slice(), position.as_bytes()].concat())
    }

    fn read_text(&self, list: &str, cursor: &str) -> Option<String> {
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
        let (tag, position) = bytes.split_first_chunk::<TAG>()?;
        let ours = self.0.all().any(|key| {
            let expected = key.mac_parts(&[list.as_bytes(), b"text", position]).truncated::<TAG>();
            expected.as_slice().ct_eq(tag).into()
        });
        if ours { String::from_utf8(position.to_vec()).ok() } else { None }
    }

    /// As [`CursorKey::open`], for a list that is ordered by texts: after which one; empty for the first page.
    ///
    /// # Errors
    /// As [`CursorKey::open`].
    pub fn open_text(&self, list: &str, request: &PageRequest) -> Result<(u16, String), Problem> {
        let limit = limit(request)?;
        match request.cursor.as_deref() {
            None | Some("") => Ok((limit, String::new())),
            Some(cursor) => {
                self.read_text(list, cursor).map(|after| (limit, after)).ok_or_else(not_of_this_list)
            }
        }
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
        let limit = limit(request)?;
        let position = match request.cursor.as_deref() {
            None | Some("") => start,
            Some(cursor) => self.read(list, cursor).ok_or_else(not_of_this_list)?,
        };
        Ok((limit, position))
    }
}

fn limit(request: &PageRequest) -> Result<u16, Problem> {
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid(vec![FieldError::new("limit", "invalid", "give a number from 1 to 200")]))
}

fn not_of_this_list() -> Problem {
    let words = "give the next_cursor of this list's previous page";
    Problem::invalid(vec![FieldError::new("cursor", "invalid", words)])
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
    fn a_text_is_a_position_like_a_number_and_as_hard_to_forge() {
        let key = CursorKey::derive(&MasterKeys::new([3; 32], &[]));
        let ask = |list: &str, cursor: &str| {
            key.open_text(list, &PageRequest { limit: None, cursor: Some(cursor.into()) })
        };
        let cursor = key.issue_text("users", "ada@example.com");
        assert_eq!(ask("users", &cursor).unwrap(), (50, "ada@example.com".to_owned()));
        assert_eq!(ask("users", "").unwrap(), (50, String::new()));
        assert_eq!(ask("others", &cursor).unwrap_err().status, 422);
        assert_eq!(ask("users", &key.issue("users", 1)).unwrap_err().status, 422);
        assert_eq!(ask("users", &format!("{cursor}A")).unwrap_err().status, 422);
    }

    #[test]
    fn limits_are_limits() {
        let key = CursorKey::derive(&MasterKeys::new([3; 32], &[]));
        for limit in [0, 201, u16::MAX] {
            assert!(key.open("l", &PageRequest { limit: Some(limit), cursor: None }, 0).is_err());
        }
    }
}
