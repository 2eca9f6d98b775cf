package postcopy

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestPromptReader: it gives what comes, and ends as the connection's own Read would.
func TestPromptReader(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(here, there net.Conn) error // while somebody reads
		want error
	}{
		"data": {func(_, there net.Conn) error {
			_, err := there.Write([]byte("x"))
			return err
		}, nil},
		"end":                   {func(_, there net.Conn) error { return there.Close() }, io.EOF},
		"close":                 {func(here, _ net.Conn) error { return here.Close() }, net.ErrClosed},
		"deadline":              {func(here, _ net.Conn) error { return here.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		"deadline that is past": {func(here, _ net.Conn) error { return here.SetReadDeadline(time.Unix(0, 1)) }, os.ErrDeadlineExceeded},
		"deadline of the whole": {func(here, _ net.Conn) error { return here.SetDeadline(time.Unix(0, 1)) }, os.ErrDeadlineExceeded},
		"deadline that is put off": {func(here, there net.Conn) error {
			err := here.SetReadDeadline(time.Now().Add(time.Hour))
			return errors.Join(err, there.Close())
		}, io.EOF},
	} {
		for _, when := range []string{"before", "while"} {
			t.Run(name+", "+when, func(t *testing.T) {
				here, there := newPair(t)
				r, ok := promptly(here).(*promptReader)
				if !ok {
					t.Fatal("a socket is not read promptly")
				}
				polls := make(chan struct{}, 1)
				if when == "before" {
					if err := tc.do(here, there); err != nil {
						t.Fatal(err)
					}
				}
				done := make(chan error, 1)
				go func() {
					polls <- struct{}{}
					_, err := r.Read(make([]byte, 4))
					done <- err
				}()
				<-polls
				if when == "while" {
					if err := tc.do(here, there); err != nil {
						t.Fatal(err)
					}
				}
				if err := <-done; !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			})
		}
	}
	pipe, far := net.Pipe()
	defer far.Close()
	if promptly(pipe) != io.Reader(pipe) {
		t.Error("what is no socket is not read as it is")
	}
}
