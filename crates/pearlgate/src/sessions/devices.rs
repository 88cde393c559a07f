//! A device that signed in before: a signed token that says so, bound to the account. It opens nothing; it only
//! tells a known device from a stranger. And what a device is called when it does not say so itself.

use foundation::kernel::{Entity, Entropy, Id, MacKey, MacKeys, Secret};
use subtle::ConstantTimeEq;

use crate::accounts::UserRow;

const PREFIX: &str = "pgd_";
const TAG: usize = 16;
/// What the link begins with in the mail about a new device.
const NOTICE: &str = "pgs_";

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

/// The device that a token names, when the token is one of ours for this account. Whether the device is still known is
/// for the store to say.
pub(super) fn named_device(
    keys: &MacKeys,
    user: Id<UserRow>,
    token: Option<&Secret>,
) -> Option<Id<DeviceRow>> {
    let bytes: [u8; 16 + TAG] = token?.decode(PREFIX)?;
    let (device, tag) = bytes.split_first_chunk::<16>()?;
    let ours = keys.all().any(|key| {
        let expected = key.mac_parts(&[user.as_bytes(), device]).truncated::<TAG>();
        expected.as_slice().ct_eq(tag).into()
    });
    ours.then(|| Id::from_bytes(*device))
}

/// A name as it may stand in a mail: nothing in it becomes a link.
pub(super) fn plain(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || " '-_()+,".contains(c);
    name.chars().map(|c| if fits(c) { c } else { ' ' }).collect()
}

/// The token of a mail about a new device.
pub(super) fn notice(chance: &Entropy) -> Secret {
    Secret::encode(NOTICE, &chance.bytes::<32>())
}

/// Whether a text has the form of such a token; others are not looked up.
pub(super) fn is_notice(text: &Secret) -> bool {
    text.decode::<32>(NOTICE).is_some()
}

/// `Firefox on Linux`, from a `User-Agent` header: enough for a person to recognise their own device. Empty for what
/// nobody would recognise. The texts are ours, never the header's, so that nobody writes into somebody's list.
pub(super) fn describe(agent: &str) -> String {
    // In an order that matters: Edge calls itself Chrome, and Chrome calls itself Safari.
    const BROWSERS: [(&str, &str); 12] = [
        ("Edg/", "Edge"),
        ("EdgA/", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser/", "Samsung Internet"),
        ("Vivaldi/", "Vivaldi"),
        ("FxiOS/", "Firefox"),
        ("Firefox/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
        ("okhttp/", "an Android application"),
    ];
    const SYSTEMS: [(&str, &str); 8] = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Macintosh", "macOS"),
        ("Linux", "Linux"),
    ];
    let find = |names: &[(&str, &'static str)]| {
        names.iter().find(|(sign, _)| agent.contains(sign)).map(|(_, name)| *name)
    };
    match (find(&BROWSERS), find(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, Some(system)) => system.to_owned(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use foundation::kernel::MasterKeys;

    use super::*;

    #[test]
    fn a_device_is_known_to_its_own_account_alone() {
        let keys = MacKeys::derive(&MasterKeys::new([1; 32], &[]), "device");
        let (ada, eve) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        assert_eq!(named_device(&keys, ada, None), None);
        let device = Id::from_bytes([3; 16]);
        let token = token(keys.current(), ada, device);
        assert_eq!(named_device(&keys, ada, Some(&token)), Some(device));
        assert_eq!(named_device(&keys, eve, Some(&token)), None);
        assert_eq!(named_device(&keys, ada, Some(&Secret::new("pgd_x".into()))), None);
        let later = MacKeys::derive(&MasterKeys::new([2; 32], &[[1; 32]]), "device");
        assert_eq!(named_device(&later, ada, Some(&token)), Some(device), "the master key changed");
    }

    #[test]
    fn a_name_in_a_mail_is_no_link() {
        assert_eq!(plain("Ada's laptop (2)"), "Ada's laptop (2)");
        assert_eq!(plain("confirm at https://evil.example/now"), "confirm at https   evil example now");
        assert_eq!(plain("\u{202e}gnp.exe"), " gnp exe");
    }

    #[test]
    fn a_device_is_called_by_what_its_owner_would_recognise() {
        for (agent, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                "Chrome on Windows",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("curl/8.14.1", "curl"),
            ("<script>alert(1)</script>", ""),
            ("", ""),
        ] {
            assert_eq!(describe(agent), name, "{agent}");
        }
    }
}
