//! A process, told apart from all others that ever had its number.

use serde::{Deserialize, Serialize};

/// A process on some machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The machine's name.
    pub host: String,
    /// The machine's start, and the process namespace, so that the process number means something.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// When that process started, in clock ticks since the machine did.
    pub started: u64,
}

impl Process {
    /// The one that asks.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { host: host(), boot: boot(), pid, started: started(pid).unwrap_or(0) }
    }

    /// True where its number means something: on its own machine, in its own namespace.
    pub fn is_visible(&self) -> bool {
        !self.boot.is_empty() && self.boot == boot()
    }

    /// True when it ran on this machine and does not any more.
    pub fn is_dead(&self) -> bool {
        self.is_visible() && started(self.pid) != Some(self.started)
    }

    /// True when a machine of this name has been started anew since. Names are not unique: good enough to show, not to take
    /// anything from anybody.
    pub fn is_before_restart(&self) -> bool {
        let here = boot();
        let (then, now) = (self.boot.split(' ').next().unwrap_or_default(), here.split(' ').next().unwrap_or_default());
        !then.is_empty() && !now.is_empty() && then != now && self.host == host()
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unknown".into(), |name| name.trim().into())
}

/// Names this start of this machine and this process namespace; empty where that cannot be known.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    if id.is_empty() { id } else { format!("{} {}", id.trim(), namespace.display()) }
}

/// When a process started: field 22 of `/proc/PID/stat`, see proc(5).
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_told_from_the_living() {
        let this = Process::this();
        assert!(this.is_visible() && !this.is_dead() && !this.is_before_restart());
        assert!(Process { started: this.started + 1, ..this.clone() }.is_dead(), "its number was given away");
        let elsewhere = Process { boot: "another start".into(), ..this.clone() };
        assert!(!elsewhere.is_dead() && elsewhere.is_before_restart());
        let namespace = Process { boot: format!("{}x", this.boot), ..this };
        assert!(!namespace.is_dead() && !namespace.is_before_restart());
    }

    #[test]
    fn an_ended_process_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process { pid: child.id(), started: started(child.id()).unwrap(), ..Process::this() };
        assert!(!process.is_dead());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(process.is_dead());
    }
}
