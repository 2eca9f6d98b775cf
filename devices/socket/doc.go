// Package socket binds the host's Unix sockets: of the control API, of incoming
// migrations, of a guest's serial port.
//
// A socket is made with mode 0600 from its first instant. A file left by a killed
// VMM is replaced: a connection that is refused proves that nobody listens. Two
// starters that both find it stale would unlink each other's new socket, so look,
// unlink and bind happen under a flock on the directory: it leaves no file, and the
// kernel frees it when its holder dies. Closing removes the file only if it is still
// the one that was bound, and before it stops listening, so a successor's socket is
// never removed. What is no socket is never touched.
//
// Rejected: a lock file (stays behind after kill -9, or is itself raced for when it
// is removed); binding a temporary name and renaming it over the path (replaces a
// live server's socket in silence); umask around bind (changes the whole process).
package socket
