//! A device that signed in before: a signed token that says so, bound to the account. It opens nothing; it only
//! tells a known device from a stranger.

use foundation::kernel::{Entity, Entropy, Id, MacKey, Secret};
use subtle::ConstantTimeEq;

use crate::accounts::UserRow;

const PREFIX: &str = "pgd_";
const TAG: usize = 16;

/// Ids of devices.
#[derive(Debug)]
pub struct DeviceRow;
impl Entity for DeviceRow {
    const PREFIX: &'static str = "dev";
}

/// The token that a device shows at its next sign-in.
pub(super) fn token(key: &MacKey, user: Id<UserRow>, device: Id<DeviceRow>) -> Secret {
    let tag = key.mac_parts(&[user.as_bytes(), device.as_bytes()]).truncated::<TAG>();
    Secret::encode(PREFIX, &[device.as_bytes().as_slice(), &tag].concat())
}

/// The device that a token names, when the token is one of ours for this account; otherwise a new one.
pub fn known_device(
    key: &MacKey,
    user: Id<UserRow>,
    token: Option<&Secret>,
    chance: &Entropy,
) -> (Id<DeviceRow>, bool) {
    let known = token.and_then(|token| {
        let bytes: [u8; 16 + TAG] = token.decode(PREFIX)?;
        let (device, tag) = bytes.split_first_chunk::<16>()?;
        let expected = key.mac_parts(&[user.as_bytes(), device]).truncated::<TAG>();
        bool::from(expected.as_slice().ct_eq(tag)).then(|| Id::from_bytes(*device))
    });
    (known.unwrap_or_else(|| Id::from_bytes(chance.bytes())), known.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_to_its_own_account_alone() {
        let key = MacKey::new(b"k");
        let (ada, eve) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let (device, known) = known_device(&key, ada, None, &Entropy::System);
        assert!(!known);
        let token = token(&key, ada, device);
        assert_eq!(known_device(&key, ada, Some(&token), &Entropy::System), (device, true));
        assert!(!known_device(&key, eve, Some(&token), &Entropy::System).1);
        assert!(!known_device(&key, ada, Some(&Secret::new("pgd_x".into())), &Entropy::System).1);
    }
}
