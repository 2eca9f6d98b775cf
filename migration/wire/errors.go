package wire

import (
	"errors"
	"fmt"
)

// ErrProtocol is the class of everything that a correct peer never sends.
var ErrProtocol = errors.New("protocol error")

// VersionError: the peer speaks another protocol version.
type VersionError struct {
	Peer uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("the peer speaks migration protocol version %d and this build version %d; run the same release on both sides", e.Peer, Version)
}

// MagicError: the first bytes of a frame are another protocol's.
type MagicError struct {
	Got [4]byte
}

func (e *MagicError) Error() string {
	return fmt.Sprintf("%v: the peer does not speak Fineline's migration protocol: its stream has %q for the magic", ErrProtocol, e.Got)
}

func (e *MagicError) Unwrap() error { return ErrProtocol }

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))
}
