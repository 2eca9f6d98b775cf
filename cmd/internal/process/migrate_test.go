package process

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// deafVMM takes requests and never answers, as a VMM that hangs. It yields each request's connection.
func deafVMM(t *testing.T) (*api.Client, <-chan net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked <- c
		}
	}()
	return api.NewClient(path), asked
}

// await receives what must come.
func await[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(30 * time.Second): // only ends a test that hangs
		t.Fatal("nothing came")
	}
	return v
}

// TestCancelOfVMMThatHangs ends without the VMM's help, when somebody has waited enough or patience is over.
func TestCancelOfVMMThatHangs(t *testing.T) {
	for name, patience := range map[string]time.Duration{"enough": time.Hour, "patience": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			client, asked := deafVMM(t)
			ctx, interrupt := context.WithCancel(t.Context())
			enough, ended := make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := migrate(ctx, enough, patience, client, api.MigrationRequest{DestinationURL: "unix:x"}, func(migration.Progress) {})
				ended <- err
			}()
			await(t, asked) // to migrate
			interrupt()
			if patience == time.Hour {
				await(t, asked) // to cancel
				select {
				case err := <-ended:
					t.Fatalf("ended with %v while somebody waits", err)
				default:
				}
				close(enough)
			}
			if err := await(t, ended); !errors.Is(err, ErrUntold) {
				t.Errorf("%v, want %v", err, ErrUntold)
			}
		})
	}
}
