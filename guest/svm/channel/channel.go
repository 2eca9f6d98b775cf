package channel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// PortName is the name of the virtio-serial port.
const PortName = "fineline.agent"

// MaxPayloadBytes bounds a frame, and what a reader allocates for one.
const MaxPayloadBytes = 1 << 20

const headerBytes = 5

// Kind says what a frame is. Zero is invalid.
type Kind uint8

// The kinds of frames; see the package comment for their order.
const (
	KindHello Kind = iota + 1
	KindRun
	KindOutput
	KindExit
	KindKill
	KindPowerOff
	kindEnd
)

var (
	// ErrTooLarge: a frame announces more than MaxPayloadBytes.
	ErrTooLarge = errors.New("frame too large")
	// ErrKind: a frame of no known kind, or not the one that is due.
	ErrKind = errors.New("unexpected frame")
)

// Hello tells what the machine is.
type Hello struct {
	Release  string   `json:"release"` // of the kernel
	CPUs     int      `json:"cpus"`
	UptimeMS int64    `json:"uptime_ms"` // since the kernel started
	Problems []string `json:"problems"`  // what failed before this, for people
}

// Command is a program to run, with stdout and stderr both sent as Output.
type Command struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"` // the whole environment
	Dir  string   `json:"dir"`
}

// Exit is how a command ended. If Error is not empty it did not run.
type Exit struct {
	Code   int    `json:"code"`   // exit status, -1 if a signal ended it
	Signal string `json:"signal"` // name, if a signal ended it
	Error  string `json:"error"`
}

// Conn sends and receives frames. Any goroutine may send; one may receive.
type Conn struct {
	r io.Reader

	mu sync.Mutex // keeps frames whole
	w  io.Writer
}

// New makes a Conn on a byte stream, which stays the caller's to close.
func New(rw io.ReadWriter) *Conn { return &Conn{r: rw, w: rw} }

// Send writes one frame with a raw payload.
func (c *Conn) Send(kind Kind, payload []byte) error {
	if len(payload) > MaxPayloadBytes {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload))
	}
	frame := make([]byte, headerBytes, headerBytes+len(payload))
	binary.LittleEndian.PutUint32(frame, uint32(len(payload)))
	frame[4] = byte(kind)
	frame = append(frame, payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.w.Write(frame)
	return err
}

// SendJSON writes one frame with v as its payload.
func (c *Conn) SendJSON(kind Kind, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Send(kind, payload)
}

// Receive reads one frame. The error is io.EOF only between frames.
func (c *Conn) Receive() (Kind, []byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(c.r, header[:]); err != nil {
		return 0, nil, err
	}
	length, kind := binary.LittleEndian.Uint32(header[:]), Kind(header[4])
	if length > MaxPayloadBytes {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, length)
	}
	if kind == 0 || kind >= kindEnd {
		return 0, nil, fmt.Errorf("%w: kind %d", ErrKind, kind)
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind, payload, nil
}

// ReceiveJSON reads one frame, which must be of that kind, into v.
func (c *Conn) ReceiveJSON(want Kind, v any) error {
	kind, payload, err := c.Receive()
	if err != nil {
		return err
	}
	if kind != want {
		return fmt.Errorf("%w: kind %d, not %d", ErrKind, kind, want)
	}
	return json.Unmarshal(payload, v)
}
