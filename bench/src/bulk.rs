//! Commands that read very large files: how fast, and in how much memory. Each runs as a process of its own on a file
//! made for it, which is in the system's cache when it begins.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use foundation::kernel::Clock;

use crate::Measured;
use crate::client::{Client, request};
use crate::measures::temporary;
use crate::program::{Program, binary, memory};
use crate::storm::Chance;
use crate::table::{Table, median};

pub(crate) const PEOPLE: usize = 1_000_000;
pub(crate) const LINES: usize = 20_000_000;
/// About as many as the public download has.
const DOWNLOAD: f64 = 1e9;
/// As many lines as give four shards of the most entries that a shard is given.
const FULL_SHARDS: usize = 1_048_576;
const BUFFER: usize = 1 << 20;
const LOOK: Duration = Duration::from_millis(10);

/// How a command went.
struct Ran {
    seconds: f64,
    peak_mib: f64,
    /// Of which no file stands behind it, at most.
    own_mib: f64,
    words: String,
}

/// Runs the program to its end. Its peak is what the kernel said at the last look, at most ten milliseconds before.
async fn watched(arguments: &[&str], files: [&Path; 2]) -> Measured<Ran> {
    let [input, output] = files;
    let started = Clock::stopwatch();
    let mut child = Command::new(binary()?)
        .args(arguments)
        .arg(input)
        .arg(if arguments.contains(&"import") { "--data" } else { "--out" })
        .arg(output)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut out = child.stdout.take().ok_or("no standard output")?;
    let reader = std::thread::spawn(move || {
        let mut words = String::new();
        out.read_to_string(&mut words).map(|_| words)
    });
    let (mut peak, mut own) = (0, 0);
    let status = loop {
        peak = peak.max(memory(child.id(), "VmHWM:").unwrap_or(0));
        own = own.max(memory(child.id(), "RssAnon:").unwrap_or(0));
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        tokio::time::sleep(LOOK).await;
    };
    let seconds = started.elapsed().as_secs_f64();
    let words = reader.join().map_err(|_| "no words")?.map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("`pearlgate {}`: {status}: {words}", arguments.join(" ")));
    }
    let mib = |kib: u64| kib as f64 / 1_024.0;
    Ok(Ran { seconds, peak_mib: mib(peak), own_mib: mib(own), words: words.trim().to_owned() })
}

fn written(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Measured<u64> {
    let file = File::create(path).map_err(|e| e.to_string())?;
    let mut file = BufWriter::with_capacity(BUFFER, file);
    write(&mut file).and_then(|()| file.flush()).map_err(|e| format!("{}: {e}", path.display()))?;
    size(path)
}

fn size(path: &Path) -> Measured<u64> {
    std::fs::metadata(path).map(|found| found.len()).map_err(|e| format!("{}: {e}", path.display()))
}

/// `pearlgate import users` of so many people with bcrypt hashes, and a start with all of them.
pub(crate) async fn import(table: &mut Table, people: usize) -> Measured<()> {
    let dir = temporary()?;
    let (file, data) = (dir.path().join("people.ndjson"), dir.path().join("data"));
    // Dev mode makes the keys and the schema; what is measured begins after it.
    drop(Program::start(&data)?);
    let bytes = written(&file, |file| {
        (0..people).try_for_each(|n| {
            writeln!(
                file,
                r#"{{"email":"person{n}@example.com","email_verified":true,"display_name":"Person {n}","created_at":"2024-03-01T09:15:00Z","password_hash":"$2b$12$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"}}"#
            )
        })
    })?;
    let ran = watched(&["import", "users"], [&file, &data]).await?;
    if !ran.words.contains(&format!("{people} imported")) {
        return Err(format!("the import: {}", ran.words));
    }
    let database: u64 =
        ["pearlgate.db", "pearlgate.db-wal"].iter().filter_map(|name| size(&data.join(name)).ok()).sum();
    let how = format!(
        "{people} lines of NDJSON ({:.0} MB), verified, bcrypt, into SQLite, synchronous=FULL, 500 in a transaction; the file is read twice (first its digest); one run",
        bytes as f64 / 1e6
    );
    let rate = people as f64 / ran.seconds;
    table.row("import, people a second", format!("{rate:.0}/s ({:.0} s)", ran.seconds), "–", &how);
    table.row(
        "import, peak memory",
        format!("{:.1} MiB, of which its own {:.1}", ran.peak_mib, ran.own_mib),
        "–",
        "VmHWM of `pearlgate import users`; the rest is pages of its database and program files",
    );
    table.row(
        "import, size of the database",
        format!("{:.0} MB, {:.0} bytes a person", database as f64 / 1e6, database as f64 / people as f64),
        "–",
        "with addresses, hashes, audit trail and indexes; not vacuumed",
    );
    let mut times = Vec::new();
    for _ in 0..11 {
        let began = Clock::stopwatch();
        let program = Program::production(&data)?;
        let ready = request("GET", "/health/ready", "", "");
        let status = Client::connect(program.port).await?.send(&ready).await?.status;
        if status != 200 {
            return Err(format!("not ready: {status}"));
        }
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    let milliseconds = median(times);
    table.judged(
        &format!("start to first 200 with {people} people"),
        format!("{milliseconds:.1} ms"),
        "≤ 25 ms",
        milliseconds <= 25.0,
        "spawn to `GET /health/ready` 200, median of 11, SQLite, production mode",
    );
    Ok(())
}

/// `pearlgate breach build` of a list of so many hashes.
pub(crate) async fn breach(table: &mut Table, lines: usize) -> Measured<()> {
    let (ran, bytes, filter) = build(lines).await?;
    let (full, ..) = build(FULL_SHARDS).await?;
    let each = filter as f64 / lines as f64;
    let rate = lines as f64 / ran.seconds;
    let how =
        format!("{lines} lines of made-up SHA-1 in ascending order ({:.0} MB), one run", bytes as f64 / 1e6);
    table.row("breach build, lines a second", format!("{rate:.0}/s ({:.1} s)", ran.seconds), "–", &how);
    table.row(
        "breach build, bytes an entry",
        format!("{each:.3}"),
        "–",
        "one password in 65,536 that is not in it is taken for one that is",
    );
    table.row(
        "breach build, peak memory",
        format!("{:.1} MiB; {:.1} MiB with shards as full as they get", ran.peak_mib, full.peak_mib),
        "–",
        &format!("VmHWM of `pearlgate breach build`, which has one shard in memory; the second from {FULL_SHARDS} lines in 4 shards"),
    );
    table.row(
        "breach build of 1,000,000,000 lines",
        format!("an extrapolation: {:.0} min, {:.2} GB, {:.1} MiB", DOWNLOAD / rate / 60.0, DOWNLOAD * each / 1e9, full.peak_mib),
        "–",
        "not measured: the rate and the bytes above times as many lines, and the memory of a full shard; reading the download from a disk may be slower",
    );
    Ok(())
}

/// One build: how it went, the bytes of its list, and those of its filter.
async fn build(lines: usize) -> Measured<(Ran, u64, u64)> {
    let dir = temporary()?;
    let (file, filter) = (dir.path().join("hashes.txt"), dir.path().join("breached.filter"));
    let started = Clock::stopwatch();
    let bytes = written(&file, |file| hashes(file, lines))?;
    println!("breach: {lines} lines, {bytes} bytes, made in {:.1} s", started.elapsed().as_secs_f64());
    let ran = watched(&["breach", "build"], [&file, &filter]).await?;
    if ran.words.starts_with(&format!("{lines} passwords")) {
        Ok((ran, bytes, size(&filter)?))
    } else {
        Err(format!("the build: {}", ran.words))
    }
}

/// `HASH:COUNT`, in ascending order, the same in every run.
fn hashes(file: &mut impl Write, lines: usize) -> std::io::Result<()> {
    let mut chance = Chance(1);
    let gap = u64::MAX / (lines as u64).max(1);
    for n in 0..lines as u64 {
        // Somewhere in its own part of all numbers.
        let first = n * gap + chance.next() % gap.max(1);
        let (second, third, count) = (chance.next(), chance.next() >> 32, chance.next());
        // Most passwords were seen a few times, some very often.
        writeln!(
            file,
            "{first:016X}{second:016X}{third:08X}:{}",
            1 + (count & 0xffff) / (1 + (count >> 48))
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_of_the_right_form() {
        let mut out = Vec::new();
        hashes(&mut out, 1_000).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1_000);
        assert!(lines.is_sorted());
        for line in lines {
            let (hash, count) = line.split_once(':').unwrap();
            assert!(hash.len() == 40 && count.parse::<u32>().unwrap() > 0, "{line}");
        }
    }
}
