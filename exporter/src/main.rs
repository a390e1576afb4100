//! kanyun-exporter: flags, log, signals; everything else is the library's.

use std::process::ExitCode;

use exporter::config::Config;
use exporter::recording::Recording;
use serve::server::Server;
use serve::shutdown::Shutdown;
use serve::sockets::Sockets;

fn main() -> ExitCode {
    let args = exporter::config::today(std::env::args_os().collect());
    let config: Config = match serve::settings::parse(args) {
        Ok(config) => config,
        Err(error) => {
            let printed = error.print();
            return if printed.is_ok() { error.exit_code().into() } else { ExitCode::FAILURE };
        }
    };
    if let Err(error) = serve::log::start(config.service.log_level, config.service.log_format) {
        return failed(&error);
    }
    // Before there is a second thread.
    let sockets = Sockets::handed_over(&config.service);
    // As many threads as a scrape can use: a hypervisor has a hundred processors, and they are the guests'.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let ended = match config.command.clone() {
        Some(command) => runtime.block_on(answer(config, command)),
        None => runtime.block_on(serve_until_stopped(config, sockets)),
    };
    // A thread that is stuck in libvirt must not hold the process back.
    runtime.shutdown_background();
    ended
}

async fn answer(config: Config, command: exporter::config::Command) -> ExitCode {
    match exporter::command::run(&config, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_enough() => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn serve_until_stopped(config: Config, sockets: Sockets) -> ExitCode {
    if config.service.config_check {
        let recording = config.replay.as_deref().map(Recording::read).transpose();
        if let Err(error) = recording {
            return failed(&error);
        }
        return match Server::check(&config.service).await {
            Ok(()) => {
                tracing::info!("all settings are valid");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        };
    }
    let shutdown = match Shutdown::on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => return failed(&error),
    };
    let revision = option_env!("KANYUN_REVISION").unwrap_or("unknown");
    match exporter::service::run(config, sockets, revision, shutdown).await {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!("{error}");
    ExitCode::FAILURE
}
