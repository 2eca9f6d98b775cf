package migration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Address is where a destination listens.
type Address struct {
	network string // "unix" or "tcp"
	address string // path, or host:port
}

// maxUnixPathBytes is sun_path (unix(7)) without its final zero.
const maxUnixPathBytes = 107

// ParseAddress reads "unix:PATH" or "tcp:HOST:PORT". A numeric IPv6 host is in brackets.
func ParseAddress(text string) (Address, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return Address{}, fmt.Errorf("address %q: want unix:PATH or tcp:HOST:PORT", text)
	}
	var err error
	switch scheme {
	case "unix":
		err = checkUnixPath(rest)
	case "tcp":
		err = checkHostPort(rest)
	default:
		err = fmt.Errorf("unknown scheme %q; want unix:PATH or tcp:HOST:PORT", scheme)
	}
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", text, err)
	}
	return Address{network: scheme, address: rest}, nil
}

func checkUnixPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path is missing")
	case len(path) > maxUnixPathBytes:
		return fmt.Errorf("the path has %d bytes; a Unix socket's has at most %d", len(path), maxUnixPathBytes)
	case strings.ContainsRune(path, 0):
		return errors.New("the path holds a zero byte")
	case path[0] == '@':
		// Go would take it for the abstract namespace, which has no permissions.
		return errors.New("a path cannot begin with @; write ./@ for a file of that name")
	}
	return nil
}

func checkHostPort(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("want tcp:HOST:PORT: %w", err)
	}
	if host == "" {
		return errors.New("the host is missing; 0.0.0.0 listens on all")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

func (a Address) String() string { return a.network + ":" + a.address }

func (a Address) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	// MPTCP, Go's default for listeners, costs bandwidth and is outside of Landlock's TCP rules.
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the destination at %s: %w; is it started with --incoming?", a, err)
	}
	return conn, nil
}

func (a Address) listen(ctx context.Context) (net.Listener, error) {
	if a.network == "unix" {
		if err := removeStaleSocket(a.address); err != nil {
			return nil, fmt.Errorf("cannot listen at %s: %w", a, err)
		}
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen at %s: %w", a, err)
	}
	return ln, nil
}

// removeStaleSocket removes a socket file that a killed process left behind: nobody listens on it.
// Anything else that lies there stays.
func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return errors.New("another process listens there; choose another path or stop it")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
