//! nginx as a plain reverse proxy with kept-alive upstream connections, which is how it is at its best.

use std::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cpu::Whose;

/// A running nginx; stops when dropped.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Nginx {
    /// Starts nginx in front of `upstream` and waits until it listens.
    pub(crate) fn start(upstream: SocketAddr, workers: usize) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        std::fs::write(folder.path().join("nginx.conf"), config(upstream, address, workers))?;
        let mut child = command(&folder).arg("-g").arg("daemon off;").spawn()?;
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("nginx ended with {status}").into());
            }
            if Instant::now() > patience {
                return Err("nginx does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { address, folder, child })
    }

    /// The processes that do the work.
    pub(crate) fn workers(&self) -> Whose {
        Whose::ChildrenOf(self.child.id())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master must be asked: killed, it would leave its workers behind.
        match command(&self.folder).arg("-s").arg("stop").status() {
            Ok(status) if status.success() => drop(self.child.wait()),
            _ => eprintln!("nginx (process {}) could not be stopped", self.child.id()),
        }
    }
}

fn command(folder: &TempDir) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
    command.arg("-e").arg(folder.path().join("error.log")).stderr(Stdio::null());
    command
}

fn config(upstream: SocketAddr, address: SocketAddr, workers: usize) -> String {
    format!(
        "worker_processes {workers};
pid nginx.pid;
error_log error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 100000000;
  upstream hello {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://hello;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
    }}
  }}
}}
"
    )
}
