//! As much of a network as a test needs.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::ensure;
use nix::sched::{CloneFlags, setns};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, index 1, `IFF_UP`. Source: Linux, `include/uapi/linux/rtnetlink.h`.
const LOOPBACK_UP: [u8; 32] =
    [32, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];

/// A network namespace begins with a loopback device that is down.
pub fn bring_up_loopback() -> anyhow::Result<()> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    sendto(&socket, &LOOPBACK_UP, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 64];
    recv(&socket, &mut answer[..], RecvFlags::empty())?;
    ensure!(answer[16..20] == [0; 4], "the loopback device stays down");
    Ok(())
}

/// Prints what the agent in the network of process `pid` answers to a GET.
pub fn get(pid: u32, path: &str) -> anyhow::Result<()> {
    setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
    let mut stream = TcpStream::connect("127.0.0.1:8080")?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}
