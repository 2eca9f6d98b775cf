package sendqueue

import (
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// connect returns the ends of a connection.
func connect(t *testing.T, network, address string) (here, there net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if here, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		here.Close()
		there.Close()
	})
	return here, there
}

// wrapped is a connection that shows what it is wrapped around.
type wrapped struct {
	net.Conn
	inner net.Conn
}

func (w wrapped) NetConn() net.Conn { return w.inner }

// TestUnsent: what the peer does not take is in the queue, and leaves it as the peer takes it.
func TestUnsent(t *testing.T) {
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			here, there := connect(t, network, address)
			if n := Unsent(here); n != 0 {
				t.Errorf("%d bytes before anything was written", n)
			}
			wrote := 0
			_ = here.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // by which both kernels are full
			for piece := make([]byte, 16<<10); ; {
				n, err := here.Write(piece)
				wrote += n
				if err != nil {
					break
				}
			}
			full := Unsent(wrapped{inner: here})
			if full == 0 {
				t.Fatalf("none of %d bytes is in the queue", wrote)
			}
			if _, err := io.ReadFull(there, make([]byte, wrote)); err != nil {
				t.Fatal(err)
			}
			if n := Unsent(here); n >= full {
				t.Errorf("%d bytes when all were taken, %d before", n, full)
			}
		})
	}
	pipe, far := net.Pipe()
	defer far.Close()
	if n := Unsent(pipe); n != 0 {
		t.Errorf("%d bytes in a pipe", n)
	}
}

// seen is a connection that knows when its queue is looked at.
type seen struct {
	*net.UnixConn
	look func()
}

func (s seen) SyscallConn() (syscall.RawConn, error) {
	s.look()
	return s.UnixConn.SyscallConn()
}

// TestFollow: each look after which less is in the queue is told, and no other; none after the stop.
func TestFollow(t *testing.T) {
	here, there := connect(t, "unix", filepath.Join(t.TempDir(), "s"))
	const frames = 5
	frame := make([]byte, 4<<10)
	for range frames {
		if _, err := here.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	looks, moves := 0, 0
	done := make(chan struct{})
	conn := seen{here.(*net.UnixConn), func() {
		switch looks++; {
		case looks%2 == 0 && looks <= 2*frames:
			if _, err := io.ReadFull(there, frame); err != nil {
				t.Error(err)
			}
		case looks == 2*frames+4:
			close(done)
		}
	}}
	stop := Follow(samples*time.Millisecond, func() { moves++ }, conn)
	<-done
	stop()
	stop()
	if moves != frames {
		t.Errorf("%d moves of %d", moves, frames)
	}
}
