//! Invitations on paper: pure.

use foundation::kernel::Entity;

/// Ids of invitations.
#[derive(Debug)]
pub struct InvitationRow;
impl Entity for InvitationRow {
    const PREFIX: &'static str = "inv";
}

/// What their tokens begin with.
pub(super) const PREFIX: &str = "pgw_";
/// The most roles that one names.
pub(super) const MOST_ROLES: usize = 20;
