package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/fineline-vmm/fineline/devices/socket"
)

// Address is where a destination listens.
type Address struct {
	network string // "unix" or "tcp"
	address string // path, or host:port
}

// ParseAddress reads "unix:PATH" or "tcp:HOST:PORT". A numeric IPv6 host is in brackets.
func ParseAddress(text string) (Address, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return Address{}, fmt.Errorf("address %q: want unix:PATH or tcp:HOST:PORT", text)
	}
	var err error
	switch scheme {
	case "unix":
		err = socket.CheckPath(rest)
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

func (a Address) listen(ctx context.Context) (ln net.Listener, err error) {
	if a.network == "unix" {
		ln, err = socket.Listen(a.address)
	} else {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(ctx, a.network, a.address)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen at %s: %w", a, err)
	}
	return ln, nil
}
