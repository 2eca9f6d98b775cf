package postcopy

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// closeCheckMS is how late a prompt reader may learn that its connection was closed, or has a deadline in the past; who
// closes it waits so long.
const closeCheckMS = 5

// promptReader reads a connection, and waits for it in the kernel, on a thread of its own.
//
// In the runtime's poller it would at times wait until sysmon looks, up to 10 ms, while goroutines are bound to threads as those
// of the background are: a thread that polls and finds something for one of those hands its processor on and sleeps, and nobody polls
// (Go 1.26, startlockedm). Seen in the kernel's trace of the slowest requests: the answer in the socket, an idle
// processor, and no thread that was woken.
//
// Package memory waits so for faults, and shares nothing with this but the call of poll(2): there it and the read are one use of the descriptor,
// which nobody gives a deadline; here a connection's deadlines hold, and its own Read follows.
type promptReader struct {
	conn net.Conn
	raw  syscall.RawConn
}

// promptly returns a reader of conn that wakes up at once, where conn is a socket and no TLS, which may have more than its socket.
func promptly(conn net.Conn) io.Reader {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return conn // closed, as it will say itself
	}
	return &promptReader{conn: conn, raw: raw}
}

func (p *promptReader) Read(b []byte) (int, error) {
	for there := 0; there <= 0; { // below 0: a signal
		err := p.raw.Read(func(fd uintptr) (done bool) {
			there, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, closeCheckMS)
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	return p.conn.Read(b)
}
