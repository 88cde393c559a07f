//! Roughly where a network address is, in words, from a MaxMind database on this machine. Nobody else is asked.

use std::net::IpAddr;
use std::path::Path;

use maxminddb::{Reader, geoip2};

/// The database, when the settings name one.
#[derive(Default)]
pub struct Places(Option<Reader<Vec<u8>>>);

impl Places {
    /// Reads the file.
    ///
    /// # Errors
    /// In words, with the setting.
    pub fn open(file: Option<&Path>) -> Result<Self, String> {
        let Some(file) = file else { return Ok(Self::default()) };
        let reader = Reader::open_readfile(file).map_err(|e| {
            format!("devices.places_file: {} is no MaxMind database that can be read: {e}", file.display())
        })?;
        Ok(Self(Some(reader)))
    }

    /// `Berlin, DE`, `DE`, or nothing.
    pub(super) fn of(&self, address: IpAddr) -> String {
        self.find(address.to_canonical()).unwrap_or_default()
    }

    fn find(&self, address: IpAddr) -> Option<String> {
        let city: geoip2::City<'_> = self.0.as_ref()?.lookup(address).ok()?.decode().ok()??;
        let names = [city.city.names.english, city.country.iso_code];
        let words: Vec<&str> = names.into_iter().flatten().collect();
        // It is shown to people and mailed: one short line, whatever the file holds.
        let plain = |text: &String| text.chars().count() <= 100 && !text.chars().any(char::is_control);
        Some(words.join(", ")).filter(plain)
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Places(…)")
    }
}
