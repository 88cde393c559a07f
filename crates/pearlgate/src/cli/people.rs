//! `pearlgate import users` and `pearlgate export users`

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use foundation::db::Db;
use foundation::kernel::{Clock, Entropy, Sealer, Secret};

use super::{ExportUsers, Failure, ImportUsers, block_on, complain, lenient, progress, say};
use crate::app::MIGRATIONS;
use crate::server::{master_keys, open_database};
use crate::settings::Settings;
use crate::transfer::{
    Extras, FirebaseHash, Importer, Preset, Said, Tally, export_users, file_digest, import_users,
};

/// How much is read or written at once.
const BUFFER: usize = 1 << 18;

pub(super) fn import(options: &ImportUsers) -> Result<ExitCode, Failure> {
    let preset: Preset = options.from.parse().map_err(|why| Failure::Other(format!("--from: {why}")))?;
    let extras = Extras {
        firebase: firebase(options)?,
        assume_verified: options.assume_verified,
        now: Clock::System.now(),
    };
    let settings = lenient(&options.common)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Other(format!("no threads could be started: {e}")))?;
    let db = runtime.block_on(open(&settings))?;
    let master = master_keys(&settings);
    let importer =
        Importer::new(db, Clock::System, Entropy::System, master.as_ref(), settings.people.clone());

    let from_stdin = options.file.as_os_str() == "-";
    let failed = |e: std::io::Error| Failure::Other(format!("{}: {e}", options.file.display()));
    let file = if from_stdin || options.dry_run {
        None
    } else {
        Some(file_digest(File::open(&options.file).map_err(failed)?).map_err(failed)?)
    };
    let bar = progress::count("records");
    let mut said = |number: u64, what: Said| {
        let line = match what {
            Said::Bad(why) => format!("{number}: bad: {why}"),
            Said::Warning(what) => format!("{number}: warning: {what}"),
        };
        // What stands in somebody else's file does not write on the operator's terminal.
        let line: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        bar.suspend(|| say(&line));
    };
    let mut move_bar = |number| bar.set_position(number);
    let how = (file, options.dry_run);
    let result = if from_stdin {
        import_users(
            &importer,
            (preset, &extras),
            std::io::stdin().lock(),
            how,
            runtime.handle(),
            &mut said,
            &mut move_bar,
        )
    } else {
        let reader = BufReader::with_capacity(BUFFER, File::open(&options.file).map_err(failed)?);
        import_users(&importer, (preset, &extras), reader, how, runtime.handle(), &mut said, &mut move_bar)
    };
    bar.finish_and_clear();
    let tally = result.map_err(Failure::Other)?;
    say(&summary(&tally, options.dry_run));
    Ok(if tally.bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn summary(tally: &Tally, dry_run: bool) -> String {
    let Tally { read, imported, existed, bad, done_before } = tally;
    let verb = if dry_run { "would be imported" } else { "imported" };
    let mut words =
        format!("{read} records: {imported} {verb}, {existed} have an account already, {bad} bad");
    if *done_before > 0 {
        words.push_str(&format!(", {done_before} done by an earlier run"));
    }
    if dry_run {
        words.push_str("; nothing was changed");
    }
    words
}

fn firebase(options: &ImportUsers) -> Result<Option<FirebaseHash>, Failure> {
    let Some(path) = &options.firebase_signer_key_file else { return Ok(None) };
    let key =
        std::fs::read_to_string(path).map_err(|e| Failure::Other(format!("{}: {e}", path.display())))?;
    Ok(Some(FirebaseHash {
        signer_key: Secret::new(key.trim().to_owned()),
        salt_separator: options.firebase_salt_separator.clone(),
        rounds: options.firebase_rounds,
        mem_cost: options.firebase_mem_cost,
    }))
}

async fn open(settings: &Settings) -> Result<Db, Failure> {
    if settings.database_url.is_none() {
        std::fs::create_dir_all(&settings.data_dir)
            .map_err(|e| Failure::Other(format!("{}: {e}", settings.data_dir.display())))?;
    }
    let db = open_database(settings)?;
    db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| Failure::Other(e.to_string()))?;
    Ok(db)
}

pub(super) fn export(options: &ExportUsers) -> Result<ExitCode, Failure> {
    let settings = lenient(&options.common)?;
    if settings.database_url.is_none() && !settings.data_dir.join("pearlgate.db").exists() {
        return Err(Failure::Other(format!("there is no database in {} yet", settings.data_dir.display())));
    }
    let sealer = master_keys(&settings).map(|master| Sealer::new(&master, Entropy::System));
    let bar = progress::count("people");
    let written = block_on(async {
        let db = open(&settings).await?;
        let mut to: Box<dyn Write + Send> = match &options.file {
            Some(path) => Box::new(BufWriter::with_capacity(BUFFER, private(path)?)),
            None => Box::new(BufWriter::new(std::io::stdout())),
        };
        let mut progress = |number| bar.set_position(number);
        let written =
            export_users(&db, sealer.as_ref(), &mut *to, &mut progress).await.map_err(Failure::Other)?;
        to.flush().map_err(|e| Failure::Other(format!("the file could not be written: {e}")))?;
        Ok::<u64, Failure>(written)
    })??;
    bar.finish_and_clear();
    complain(&format!(
        "{written} people written, with their password hashes and second factors: keep the file safe"
    ));
    Ok(ExitCode::SUCCESS)
}

/// A new file that nobody else can read.
pub(super) fn private(path: &Path) -> Result<File, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::Other(format!("{}: {e}; give the name of a new file", path.display())))
}
