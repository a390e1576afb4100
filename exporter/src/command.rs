//! What an operator does on a hypervisor: shows external traffic and guests' figures, makes and removes accounting rules.
//! Prints; what is printed, `snapshot` and `traffic` know. 2012's `kanyun -n`, `-vm`, `-vi`, `-cmd` and `listip -a`.

mod figures;
mod rules;
mod table;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::collect::Collector;
use crate::config::{Command, Config, RecordFlags, Repeat, TrafficCommand};
use crate::recorder;
use crate::recording::Recording;
use crate::selection::CollectorName;
use crate::snapshot::{Guest, Snapshot, Step, Traffic};
use crate::traffic::firewall::Firewall;
use crate::traffic::guest_of;
use crate::worker::Source;

/// What the commands show.
const SHOWN: [CollectorName; 5] = [
    CollectorName::Block,
    CollectorName::Cpu,
    CollectorName::Interface,
    CollectorName::Memory,
    CollectorName::Traffic,
];

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The text says what to do.
    #[error("{0}")]
    Failed(String),
    /// What is printed cannot be written.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Whether whoever reads the output has had enough, as `head` has: no fault.
    pub fn is_enough(&self) -> bool {
        matches!(self, CommandError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn of(error: impl std::fmt::Display) -> Self {
        CommandError::Failed(error.to_string())
    }
}

/// Runs a subcommand. Waits for standard output, and so must not run beside a service.
pub async fn run(config: &Config, command: Command) -> Result<(), CommandError> {
    match command {
        Command::Traffic(TrafficCommand::Show(repeat)) => show_traffic(config, repeat).await,
        Command::Traffic(TrafficCommand::Print(flags)) => rules::print(config, &flags).await,
        Command::Traffic(TrafficCommand::Apply(flags)) => rules::apply(config, &flags).await,
        Command::Traffic(TrafficCommand::Remove) => rules::remove(config).await,
        Command::Guests(repeat) => show_guests(config, repeat).await,
        Command::Record(flags) => record(config, &flags).await,
        Command::Guest { id } => show_guest(config, &id).await,
    }
}

/// What libvirt and, where it is asked for, the firewall say now.
async fn snapshot(collector: &Collector, config: &Config) -> Result<Arc<Snapshot>, CommandError> {
    let deadline = Instant::now() + config.scrape_timeout;
    let wanted = SHOWN.into_iter().collect();
    collector.snapshot(deadline, wanted).await.map_err(CommandError::of)
}

/// The guests, or why there are none.
fn guests(snapshot: &Snapshot, config: &Config) -> Result<Vec<Guest>, CommandError> {
    let found = snapshot.guests.clone().filter(|_| snapshot.up);
    found.ok_or_else(|| {
        let uri = &config.libvirt_uri;
        CommandError::Failed(format!(
            "libvirt does not answer at {uri}: see the lines above, and name it with --libvirt.uri"
        ))
    })
}

async fn show_traffic(config: &Config, repeat: Repeat) -> Result<(), CommandError> {
    let firewall = Firewall::new(&config.traffic);
    let collector = Collector::new(config, Some(firewall)).map_err(CommandError::of)?;
    let mut before: Option<Traffic> = None;
    every(repeat, async |out| {
        let snapshot = snapshot(&collector, config).await?;
        let Some(traffic) = &snapshot.traffic else {
            return Err(CommandError::Failed(
                "the accounting rules cannot be read: see the lines above".to_owned(),
            ));
        };
        let known = snapshot.guests.as_deref();
        figures::traffic(traffic, before.as_ref(), known).print(out)?;
        let is_traffic = |step: &&Step| step.collector == CollectorName::Traffic.name();
        if snapshot.scrape.steps.iter().find(is_traffic).is_some_and(|step| !step.success) {
            writeln!(out, "some accounting rules could not be read: see the lines above")?;
        }
        if traffic.unclear_rules > 0 {
            let count = traffic.unclear_rules;
            writeln!(out, "{count} accounting rules do not say for whom or which way they count")?;
        }
        before = Some(traffic.clone());
        Ok(())
    })
    .await
}

async fn show_guests(config: &Config, repeat: Repeat) -> Result<(), CommandError> {
    let collector = Collector::new(config, None).map_err(CommandError::of)?;
    let mut before: Option<(Instant, Vec<Guest>)> = None;
    every(repeat, async |out| {
        let snapshot = snapshot(&collector, config).await?;
        let (now, guests) = (Instant::now(), guests(&snapshot, config)?);
        let past =
            before.as_ref().map(|(then, guests)| (now.duration_since(*then), guests.as_slice()));
        figures::guests(&guests, past).print(out)?;
        before = Some((now, guests));
        Ok(())
    })
    .await
}

async fn show_guest(config: &Config, id: &str) -> Result<(), CommandError> {
    let collector = Collector::new(config, None).map_err(CommandError::of)?;
    let snapshot = snapshot(&collector, config).await?;
    let guests = guests(&snapshot, config)?;
    let wanted = guest_of(id).unwrap_or_default();
    let mut found = guests.iter().filter(|guest| guest.name == id || guest.name == wanted);
    let guest = found.next().or_else(|| guests.iter().find(|guest| guest.uuid == wanted));
    let guest = guest.ok_or_else(|| {
        let count = guests.len();
        CommandError::Failed(format!("no guest {id} among the {count} of this host"))
    })?;
    let mut out = io::stdout().lock();
    figures::identity(guest).print(&mut out)?;
    Ok(())
}

/// Writes what libvirt says now.
async fn record(config: &Config, flags: &RecordFlags) -> Result<(), CommandError> {
    let source = Source::of(config);
    let recording = match &config.replay {
        Some(file) => Recording::read(file).map_err(CommandError::of)?,
        None => tokio::task::spawn_blocking(move || recorder::record(&source))
            .await
            .map_err(CommandError::of)?
            .map_err(CommandError::of)?,
    };
    let recording = if flags.anonymise { recording.anonymised() } else { recording };
    let text = recording.text().map_err(CommandError::of)?;
    if flags.file.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        return Ok(out.flush()?);
    }
    let failed = |error: io::Error| {
        CommandError::Failed(format!("{} cannot be written: {error}", flags.file.display()))
    };
    std::fs::write(&flags.file, text).map_err(failed)
}

/// Shows something once, or again and again until it fails or is interrupted.
async fn every(
    repeat: Repeat,
    mut show: impl AsyncFnMut(&mut dyn Write) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut out = io::stdout();
    let Some(seconds) = repeat.seconds else {
        show(&mut out).await?;
        return Ok(out.flush()?);
    };
    let mut clock = tokio::time::interval(Duration::from_secs(seconds));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        show(&mut out).await?;
        writeln!(out)?;
        out.flush()?;
    }
}
