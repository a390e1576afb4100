//! kanyun-exporter: libvirt's guests as Prometheus metrics.
//! In reading order: what is known (`snapshot`), where it comes from (`stats`, `xml`, `start_time`, `libvirt`), how it
//! is fetched in time (`worker`, `collect`), what of it is wanted (`selection`), what is counted from
//! one collection to the next (`tally`), a host on file (`recording`), what the firewall counts (`traffic`), how it is written (`families`), and the
//! program around it (`config`, `service`, `command`).

mod collect;
pub mod command;
pub mod config;
pub mod families;
mod libvirt;
mod recorder;
pub mod recording;
pub mod selection;
pub mod service;
pub mod snapshot;
mod start_time;
mod stats;
mod tally;
mod traffic;
mod worker;
mod xml;
