package inject

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// connect returns both ends of a real connection; ours goes through the plan.
func connect(t *testing.T, plan *Plan) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		raw.Close()
		theirs.Close()
	})
	return plan.Over(raw), theirs
}

// TestStall: who waits in a read when the link stands still waits on; nothing passes, and closing is not heard.
func TestStall(t *testing.T) {
	plan, err := Parse("source.paused=stall")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := connect(t, plan)
	if _, err := ours.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		read <- err
	}()
	if err := plan.At(SourcePaused, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write([]byte("b")); err != nil {
		t.Fatal(err)
	}
	_ = ours.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	_ = ours.SetWriteDeadline(time.Now().Add(time.Millisecond))
	if _, err := ours.Write([]byte("c")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
	_ = theirs.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := theirs.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer read %d bytes, %v", n, err)
	}
	plan.Release()
	_ = theirs.SetReadDeadline(time.Time{})
	if _, err := theirs.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer read after Release: %v", err)
	}
}

// TestOnlyStallsWrap: other plans are not in the way of a connection, and later connections are good.
func TestOnlyStallsWrap(t *testing.T) {
	cut, err := Parse("source.paused=cut")
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if (*Plan)(nil).Over(a) != a || cut.Over(a) != a {
		t.Error("a connection was wrapped for nothing")
	}
	stall, err := Parse("source.paused=stall")
	if err != nil {
		t.Fatal(err)
	}
	_ = stall.At(SourcePaused, nil)
	ours, theirs := connect(t, stall)
	if _, err := ours.Write([]byte("a")); err != nil {
		t.Error(err)
	}
	if _, err := theirs.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}
