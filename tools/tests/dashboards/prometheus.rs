//! A Prometheus of the test's own: started over some addresses, asked, ended.
//!
//! Off the data path.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringraft_tools::ports;
use serde_json::Value;

/// A running Prometheus.
pub(crate) struct Prometheus {
    process: Child,
    address: String,
}

impl Prometheus {
    /// Starts one that scrapes these addresses every second.
    pub(crate) fn start(folder: &Path, targets: &[String]) -> Self {
        let list = targets.iter().map(|target| format!("'{target}'")).collect::<Vec<_>>().join(", ");
        let config = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: ringraft\n    static_configs:\n      - targets: [{list}]\n"
        );
        let path = folder.join("prometheus.yml");
        fs::write(&path, config).expect("a file");
        let address = format!("127.0.0.1:{}", ports::free_run(1).expect("a port"));
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .spawn()
            .expect("prometheus runs: Debian's package `prometheus` has it");
        Self { process, address }
    }

    /// The values of an instant query, one per series.
    pub(crate) fn ask(&self, query: &str) -> Result<Vec<f64>, String> {
        let body = get(&self.address, &format!("/api/v1/query?query={}", percent_encoded(query)))?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let series = answer["data"]["result"].as_array().ok_or_else(|| format!("no result: {body}"))?;
        series
            .iter()
            .map(|one| one["value"][1].as_str().and_then(|text| text.parse().ok()).ok_or(body.clone()))
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn get(address: &str, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or(text)
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// A query of a dashboard with its variables filled in.
pub(crate) fn as_grafana_asks(query: &str) -> String {
    let query = query.replace("$__rate_interval", "10s").replace("$instance", ".*");
    assert!(!query.contains('$'), "a variable nobody fills in: {query}");
    query
}

/// Has promtool check what is given to Prometheus.
pub(crate) fn check_files(deploy: &Path) {
    for arguments in [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(deploy).output().expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}
