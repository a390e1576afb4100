//! Flags that other libvirt exporters have (inovex' and those before it, Debian's package), so that their command lines
//! go on unchanged: what each means here. Says what has no effect; must not know how guests are read.

use std::time::Duration;

use clap::Args;

use super::duration;

/// Most connections that are worth having: more than that, and nova's own calls wait behind them.
pub(super) const CONNECTIONS_MAX: u8 = 8;

/// Flags of other exporters.
#[derive(Args, Clone, Debug, Default)]
#[command(about = None, long_about = None)]
pub struct InheritedFlags {
    /// libvirt's driver, where --libvirt.uri is the path of a socket
    #[arg(long = "libvirt.driver", value_name = "URI", default_value = "qemu:///system")]
    #[arg(value_parser = driver, global = true)]
    pub driver: String,

    /// One more path that answers 200 while the process serves, beside /-/healthy
    #[arg(long = "web.health-path", value_name = "PATH", value_parser = super::health_path)]
    pub health_path: Option<String>,

    /// inovex': the same as --libvirt.connections
    #[arg(long = "exporter.max-concurrent-collects", value_name = "NUMBER", hide = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent: Option<u16>,

    /// inovex': the longest time of one call
    #[arg(long = "exporter.timeout", value_name = "DURATION", hide = true)]
    #[arg(value_parser = duration)]
    timeout: Option<Duration>,

    /// kumina's: nova's labels, which are always there
    #[arg(long = "libvirt.export-nova-metadata", hide = true)]
    nova_metadata: bool,
}

impl InheritedFlags {
    /// How many connections another exporter's flag asks for, within what is sensible here.
    pub(super) fn connections(&self) -> Option<u8> {
        let asked = self.max_concurrent?;
        Some(u8::try_from(asked).unwrap_or(CONNECTIONS_MAX).min(CONNECTIONS_MAX))
    }

    /// A sentence for each flag that does not do here what it does elsewhere.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.timeout.is_some() {
            remarks.push(
                "--exporter.timeout has no effect: a scrape ends before Prometheus' own timeout, \
                 and no guest waits for another"
                    .to_owned(),
            );
        }
        if let Some(asked) = self.max_concurrent.filter(|asked| *asked > CONNECTIONS_MAX.into()) {
            remarks.push(format!(
                "--exporter.max-concurrent-collects={asked} is taken for {CONNECTIONS_MAX}, the \
                 most that --libvirt.connections allows"
            ));
        }
        if self.nova_metadata {
            remarks.push(
                "--libvirt.export-nova-metadata has no effect: nova's names are always there, on \
                 libvirt_domain_openstack_info"
                    .to_owned(),
            );
        }
        remarks
    }
}

fn driver(text: &str) -> Result<String, String> {
    let plain = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    match text.split_once("://") {
        Some((scheme, path)) if plain(scheme) && !path.contains(['?', '#']) => Ok(text.to_owned()),
        _ => Err("give a libvirt URI without parameters, such as qemu:///system".to_owned()),
    }
}
