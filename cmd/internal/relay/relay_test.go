package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ends is a connection through w, of which the test holds both ends.
func ends(t *testing.T, w *wire) (sender, receiver net.Conn) {
	sender, src := net.Pipe()
	dst, receiver := net.Pipe()
	d := direction{wire: w, dst: dst, src: src, cut: func() { src.Close(); dst.Close() }}
	go func() {
		d.pass(t.Context())
		dst.Close()
	}()
	return sender, receiver
}

// TestWireIsExact: the clock is a fake one, so times are exact.
func TestWireIsExact(t *testing.T) {
	for _, conns := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			const each = 6 << 20
			w := &wire{bytesPerS: 100e6 / 8, delay: 5 * time.Millisecond}
			start := time.Now()
			var all sync.WaitGroup
			for range conns {
				sender, receiver := ends(t, w)
				sent := bytes.Repeat([]byte("fineline"), each/8)
				all.Go(func() {
					sender.Write(sent)
					sender.Close()
				})
				all.Go(func() {
					got, err := io.ReadAll(receiver)
					if err != nil || !bytes.Equal(got, sent) {
						t.Errorf("received %d bytes of %d: %v", len(got), each, err)
					}
				})
			}
			all.Wait()
			want := w.time(conns*each) + w.delay
			// Each chunk's time is cut to a nanosecond.
			if took := time.Since(start); (took - want).Abs() > time.Microsecond {
				t.Errorf("%d connections: %d bytes took %v, want %v", conns, conns*each, took, want)
			}
		})
	}
}

// TestQueueIsBounded: a sender cannot put more into the link than the queue and a chunk.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{bytesPerS: 10e6}
		sender, receiver := ends(t, w)
		go io.Copy(io.Discard, receiver)
		start := time.Now()
		const n = 1 << 20
		if _, err := sender.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		least := w.time(n-chunkBytes) - queueTime
		if took := time.Since(start); took < least || took > w.time(n) {
			t.Errorf("the sender was held for %v, want %v to %v", took, least, w.time(n))
		}
		sender.Close()
	})
}

// TestSmallAfterIdle: a wire that was idle owes nothing, and a small message has only its own time.
func TestSmallAfterIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{bytesPerS: 1e6, delay: time.Millisecond}
		sender, receiver := ends(t, w)
		defer sender.Close()
		for range 3 {
			start := time.Now()
			sender.Write(make([]byte, 100))
			if _, err := io.ReadFull(receiver, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			if took, want := time.Since(start), w.delay+100*time.Microsecond; took != want {
				t.Errorf("took %v, want %v", took, want)
			}
			<-time.After(time.Second) // of the fake clock
		}
	})
}

// TestSlowReceiver stops its own connection and not the other.
func TestSlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{bytesPerS: 1e9}
		deaf, unread := ends(t, w)
		written := make(chan int)
		go func() {
			n, _ := deaf.Write(make([]byte, 1<<30))
			written <- n
		}()
		synctest.Wait()
		sender, receiver := ends(t, w)
		go sender.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(receiver, got); err != nil || string(got) != "hello" {
			t.Errorf("received %q: %v", got, err)
		}
		sender.Close()
		unread.Close()
		deaf.Close()
		if n := <-written; n > (w.inFlight()/chunkBytes+minChunks+2)*chunkBytes {
			t.Errorf("%d bytes went to a receiver that does not read", n)
		}
	})
}

// hangGuard only ends a test that hangs; no result depends on it.
const hangGuard = time.Minute

// dial connects for no longer than hangGuard.
func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(hangGuard))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// TestRelay passes real sockets both ways, keeps half of a closed connection open, and ends.
func TestRelay(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	l, err := net.Listen("unix", to)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // echoes in capitals after the last word
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(hangGuard))
			text, _ := io.ReadAll(c)
			c.Write(bytes.ToUpper(text))
			c.Close()
		}
	}()
	r, err := Start(from, to, Link{BitsPerS: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "another"} {
		c := dial(t, from)
		c.Write([]byte(word))
		c.CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil || string(got) != strings.ToUpper(word) {
			t.Errorf("said %q, heard %q: %v", word, got, err)
		}
		c.Close()
	}
	open := dial(t, from)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection outlives the relay")
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	r, err := Start(filepath.Join(dir, "from"), filepath.Join(dir, "to"), Link{BitsPerS: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, filepath.Join(dir, "from")).Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the source is not told")
	}
	if err := r.Close(); err == nil {
		t.Error("Close does not say that nobody listened")
	}
	if _, err := Start(filepath.Join(dir, "x"), "y", Link{BitsPerS: 1}); err == nil {
		t.Error("a link of 1 bit/s starts")
	}
}
