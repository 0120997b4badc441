//! Unix sockets to listen on. If another process listens on a socket, that is an error; a dead socket is replaced.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::server::SocketMode;

const BACKLOG: i32 = 2048;

/// Fails with [`io::ErrorKind::AddrInUse`] if a process listens there, and with [`io::ErrorKind::AlreadyExists`] if the
/// file is not a socket.
pub(crate) fn listen(path: &Path, mode: SocketMode) -> io::Result<UnixListener> {
    // Of two gates that start at once, one must not remove the new socket of the other.
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = File::options().create(true).append(true).open(lock_path)?;
    lock.lock()?;
    let address = SockAddr::unix(path)?;
    remove_dead(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    // Set the mode before listening, so that no unauthorized user can connect.
    fs::set_permissions(path, Permissions::from_mode(mode.bits()))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket of a process that exited without removing it.
fn remove_dead(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => {
            let message = "the file exists and is not a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A socket with a full backlog would block the probe.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}
