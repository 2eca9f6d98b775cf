package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// leaveStale makes the file that a killed VMM leaves.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListenMakesAPrivateSocketAndRemovesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|socketMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live")
	l, err := Listen(live)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(live, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		inUse      bool
	}{
		{live, "socket in use: a process listens on " + live, true},
		{file, "not a socket", true},
		{link, "not a socket", true},
		{dir, "not a socket", true},
		{"", "the path is empty", false},
		{"@abstract", "no file mode", false},
		{filepath.Join(dir, "nowhere", "s"), "does not exist: create it", false},
		{filepath.Join(file, "s"), "not a directory", false},
		{filepath.Join(dir, strings.Repeat("x", 200)), "the kernel takes 107", false},
	} {
		_, err := Listen(c.path)
		wantError(t, err, c.want)
		if errors.Is(err, ErrInUse) != c.inUse {
			t.Errorf("%s: ErrInUse is %v: %v", c.path, !c.inUse, err)
		}
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "precious" {
		t.Errorf("the file was touched: %q %v", content, err)
	}
	if conn, err := net.Dial("unix", live); err != nil {
		t.Errorf("the live server was harmed: %v", err)
	} else {
		_ = conn.Close()
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	leaveStale(t, path)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil { // somebody tidied up
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestOneOfManyStartersWins starts many at a stale socket, again and again.
func TestOneOfManyStartersWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	for range 20 {
		leaveStale(t, path)
		var mu sync.Mutex
		var winners []*Listener
		var starters sync.WaitGroup
		for range 8 {
			starters.Go(func() {
				l, err := Listen(path)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, l)
				} else if !errors.Is(err, ErrInUse) {
					t.Errorf("got %v", err)
				}
			})
		}
		starters.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d servers on one socket", len(winners))
		}
		if err := winners[0].Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("got %v, want an error with %q", err, part)
	}
}
