//! `pearlgate breach`: filters of breached passwords.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;

use foundation::kernel::Secret;
use foundation::outbound::Dependencies;

use super::{BreachBuild, BreachCheck, Failure, block_on, complain, lenient, progress, say};
use crate::passwords::{
    About, Attempt, Breaches, Builder, Filter, Finding, HashKind, Password, Place, filter_key, key_of,
};

/// A line of the public download is about this long, for a hash of 40 digits and of 32.
const LINE: u64 = 46;
const NTLM_LINE: u64 = 38;
/// How much is read at once.
const BUFFER: usize = 1 << 20;

pub(super) fn build(options: &BreachBuild) -> Result<ExitCode, Failure> {
    let words = options.words;
    let built = if words { from_words(options) } else { from_hashes(options) }?;
    let bytes = std::fs::metadata(&options.out).map_err(|e| failed(&options.out, &e))?.len();
    say(&format!(
        "{built} passwords in {} ({bytes} bytes, {:.2} each; one password in 65,536 that is not in it is taken for one that is)",
        options.out.display(),
        per_entry(bytes, built)
    ));
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::cast_precision_loss, reason = "two decimals of a ratio")]
fn per_entry(bytes: u64, entries: u64) -> f64 {
    bytes as f64 / (entries.max(1) as f64)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Other(format!("{}: {error}", path.display()))
}

/// From hashes in ascending order, as the public download has them.
fn from_hashes(options: &BreachBuild) -> Result<u64, Failure> {
    let mut sizes = Vec::new();
    for path in &options.files {
        sizes.push(std::fs::metadata(path).map_err(|e| failed(path, &e))?.len());
    }
    let total: u64 = sizes.iter().sum();
    let first = options.files.first().ok_or_else(|| Failure::Other("name at least one file".into()))?;
    let kind = kind_of(first)?;
    let line = if kind == HashKind::Sha1 { LINE } else { NTLM_LINE };
    let mut builder =
        Builder::start(&options.out, kind, total / line, total).map_err(|e| failed(&options.out, &e))?;
    let begin = builder.place();
    if begin.input as usize >= options.files.len() {
        return Err(failed(&options.out, &"the .partial file beside it is not of these files; remove it"));
    }
    if begin.offset > 0 || begin.input > 0 {
        complain(&format!("going on after {} passwords of an earlier run", builder.entries()));
    }
    let bar = progress::bytes(total);
    for (number, path) in (0u32..).zip(&options.files).skip(begin.input as usize) {
        let before: u64 = sizes.iter().take(number as usize).sum();
        let offset = if number == begin.input { begin.offset } else { 0 };
        let mut file = File::open(path).map_err(|e| failed(path, &e))?;
        file.seek(SeekFrom::Start(offset)).map_err(|e| failed(path, &e))?;
        let place = Place { input: number, offset, inputs: total };
        let wrong = |at: u64, what: &dyn std::fmt::Display| {
            Failure::Other(format!("{}, byte {at}: {what}", path.display()))
        };
        read_hashes(BufReader::with_capacity(BUFFER, file), kind, place, &mut builder, &wrong, &|at| {
            bar.set_position(before + at);
        })?;
    }
    bar.finish_and_clear();
    builder.finish().map_err(|e| failed(&options.out, &e))
}

fn kind_of(path: &Path) -> Result<HashKind, Failure> {
    let mut line = String::new();
    let file = File::open(path).map_err(|e| failed(path, &e))?;
    BufReader::new(file).read_line(&mut line).map_err(|e| failed(path, &e))?;
    let digits = line.bytes().take_while(u8::is_ascii_hexdigit).count();
    [HashKind::Sha1, HashKind::Ntlm].into_iter().find(|kind| kind.digits() == digits).ok_or_else(|| {
        failed(path, &"its first line is neither a SHA-1 (40 digits) nor an NTLM hash (32); for a list of passwords give --words")
    })
}

fn read_hashes(
    mut reader: impl BufRead,
    kind: HashKind,
    mut place: Place,
    builder: &mut Builder,
    wrong: &dyn Fn(u64, &dyn std::fmt::Display) -> Failure,
    at: &dyn Fn(u64),
) -> Result<(), Failure> {
    let mut line = Vec::with_capacity(64);
    let mut lines = 0u32;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|e| wrong(place.offset, &e))?;
        if read == 0 {
            return Ok(());
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            let (hash, rest) = text.split_at_checked(kind.digits()).unwrap_or((text, &[]));
            let whole = hash.iter().all(u8::is_ascii_hexdigit) && (rest.is_empty() || rest.starts_with(b":"));
            let key = key_of(hash).filter(|_| whole && hash.len() == kind.digits());
            let key = key.ok_or_else(|| {
                wrong(place.offset, &"this line is not a hash with a count; is the download complete?")
            })?;
            builder.push(key, place).map_err(|e| wrong(place.offset, &e))?;
        }
        place.offset += read as u64;
        lines = lines.wrapping_add(1);
        if lines.is_multiple_of(65_536) {
            at(place.offset);
        }
    }
}

/// From a list of passwords, one on each line, in any order; held in memory.
fn from_words(options: &BreachBuild) -> Result<u64, Failure> {
    let mut keys = Vec::new();
    for path in &options.files {
        let file = File::open(path).map_err(|e| failed(path, &e))?;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|e| failed(path, &e))?;
            if !line.is_empty() {
                keys.push(filter_key(HashKind::Sha1, &line));
            }
        }
    }
    keys.sort_unstable();
    let count = keys.len() as u64;
    let mut builder =
        Builder::start(&options.out, HashKind::Sha1, count, count).map_err(|e| failed(&options.out, &e))?;
    for key in keys {
        builder
            .push(key, Place { inputs: count, ..Place::default() })
            .map_err(|e| failed(&options.out, &e))?;
    }
    builder.finish().map_err(|e| failed(&options.out, &e))
}

/// Reads a password without echo and says what is known about it.
pub(super) fn check(options: &BreachCheck) -> Result<ExitCode, Failure> {
    let mut settings = lenient(&options.common)?;
    if let Some(filter) = &options.filter {
        settings.breach_filter = Some(filter.clone());
    }
    if options.local {
        settings.breach_service = crate::settings::BreachService::Off;
    }
    let text = password()?;
    let attempt = Attempt::accept("password", &text).map_err(|e| Failure::Other(e.message))?;
    if let Err(error) = Password::accept("password", &text, &About::default()) {
        say(&error.message);
        return Ok(ExitCode::FAILURE);
    }
    let dependencies =
        Dependencies::new(foundation::kernel::Clock::System, foundation::kernel::Entropy::System);
    let finding = block_on(async {
        let breaches = Breaches::new(&settings, &dependencies).map_err(Failure::Other)?;
        Ok::<_, Failure>(breaches.find(attempt.reveal()).await)
    })??;
    let (words, code) = match finding {
        Finding::Breached => {
            ("this password became known in a breach; do not use it anywhere", ExitCode::FAILURE)
        }
        Finding::Unknown => ("this password is in no list that was asked", ExitCode::SUCCESS),
        Finding::NotAsked => {
            ("this password is in no local list; the breach service did not answer", ExitCode::from(2))
        }
    };
    say(words);
    Ok(code)
}

pub(super) fn password() -> Result<Secret, Failure> {
    let read = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("Password (not shown): ")
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line.trim_end_matches(['\r', '\n']).to_owned())
    };
    read.map(Secret::new).map_err(|e| Failure::Other(format!("the password could not be read: {e}")))
}

/// What a filter file is.
pub(super) fn show(path: &Path) -> Result<ExitCode, Failure> {
    let filter = Filter::open(path).map_err(|e| failed(path, &e))?;
    say(&format!("{} passwords by their {:?}", filter.entries(), filter.kind()));
    Ok(ExitCode::SUCCESS)
}
