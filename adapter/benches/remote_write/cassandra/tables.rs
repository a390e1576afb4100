//! What the tables of a keyspace hold on disk: bytes a sample, and the largest partition of each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::TryStreamExt;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use crate::disk;

/// What Cassandra's tools, too, need of Java.
const EXPORTS: [&str; 4] = [
    "--add-exports",
    "java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports",
    "java.base/jdk.internal.ref=ALL-UNNAMED",
];

/// Bytes a sample of each table that takes any.
pub(super) fn sizes(folder: &Path, samples: usize) -> Result<String, String> {
    let tables = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut sizes = Vec::new();
    for table in tables {
        let table: PathBuf = table.map_err(|error| error.to_string())?.path();
        let bytes = disk::allocated(&table)? as f64 / samples as f64;
        let name = table.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.split('-').next().unwrap_or_default().to_owned();
        if bytes >= 0.01 {
            sizes.push(format!("{name} {bytes:.2}"));
        }
    }
    sizes.sort();
    Ok(sizes.join(", "))
}

/// The rows of the partition that has most of them, by table; counted by the node.
pub(super) async fn most_rows(
    address: &str,
    keyspace: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let session = SessionBuilder::new().known_node(address).build().await;
    let session = session.map_err(|error| text(&error))?;
    let columns = "SELECT table_name, column_name, position FROM system_schema.columns \
                   WHERE keyspace_name = ? AND kind = 'partition_key' ALLOW FILTERING";
    let columns = session.query_unpaged(columns, (keyspace,)).await.map_err(|e| text(&e))?;
    let columns = columns.into_rows_result().map_err(|error| text(&error))?;
    let mut keys: BTreeMap<String, BTreeMap<i32, String>> = BTreeMap::new();
    for row in columns.rows::<(String, String, i32)>().map_err(|error| text(&error))? {
        let (table, column, position) = row.map_err(|error| text(&error))?;
        keys.entry(table).or_default().insert(position, column);
    }
    // From which everything may be deleted: a node does not read over 100,000 deleted rows.
    keys.remove("late");
    let mut most = BTreeMap::new();
    for (table, key) in keys {
        let key: Vec<String> = key.into_values().collect();
        let most_here = most_rows_of(&session, (keyspace, &table), &key.join(", ")).await?;
        if let Some(rows) = most_here {
            most.insert(table, rows);
        }
    }
    Ok(most)
}

async fn most_rows_of(
    session: &Session,
    (keyspace, table): (&str, &str),
    key: &str,
) -> Result<Option<i64>, String> {
    let count = format!("SELECT COUNT(*) FROM {keyspace}.{table} GROUP BY {key}");
    let pager = session.query_iter(count, ()).await.map_err(|error| error.to_string())?;
    let mut counts = pager.rows_stream::<(i64,)>().map_err(|error| error.to_string())?;
    let mut most = None;
    while let Some((rows,)) = counts.try_next().await.map_err(|error| error.to_string())? {
        most = most.max(Some(rows));
    }
    Ok(most)
}

/// The bytes of the largest partition, by table, as the node's tables say it.
pub(super) fn most_bytes(
    node: (&Path, u16),
    keyspace: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let told = nodetool(node, &["tablestats", "-F", "json", keyspace])?;
    let told: serde_json::Value =
        serde_json::from_str(&told).map_err(|error| format!("nodetool tablestats: {error}"))?;
    let tables = told[keyspace]["tables"].as_object();
    let tables = tables.ok_or_else(|| format!("nodetool tells nothing of {keyspace}"))?;
    let of = |table: &serde_json::Value| table["compacted_partition_maximum_bytes"].as_i64();
    Ok(tables.iter().filter_map(|(name, table)| Some((name.clone(), of(table)?))).collect())
}

/// Table by table.
pub(super) fn said(rows: &BTreeMap<String, i64>, bytes: &BTreeMap<String, i64>) -> String {
    let tables = rows.iter().map(|(table, rows)| match bytes.get(table) {
        Some(bytes) => format!("{table} {rows} rows, {:.1} KiB", *bytes as f64 / 1024.0),
        None => format!("{table} {rows} rows"),
    });
    tables.collect::<Vec<_>>().join("; ")
}

/// What Cassandra's own tool prints of the node with this folder and JMX port.
pub(super) fn nodetool(node: (&Path, u16), arguments: &[&str]) -> Result<String, String> {
    let env = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let java = env("KANYUN_JAVA").unwrap_or_else(|_| "java".to_owned());
    let (folder, jmx) = (node.0.display(), node.1.to_string());
    let output = Command::new(java)
        .args(EXPORTS)
        // It keeps a history there.
        .arg(format!("-Duser.home={folder}"))
        // Else its log goes between what it prints.
        .arg(format!("-Dlogback.configurationFile=file://{folder}/logback.xml"))
        .args(["-cp", &format!("{}/*", env("KANYUN_CASSANDRA_LIB")?)])
        .args(["org.apache.cassandra.tools.NodeTool", "-h", "127.0.0.1", "-p", &jmx])
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("nodetool: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
