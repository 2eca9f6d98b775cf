package protocol

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Bounds of a message.
const (
	MaxRequestBytes  = 256 << 10
	MaxResponseBytes = 1 << 20
	MaxRanges        = 4096 // of a request
	MaxPages         = 8192 // of a part of a report
)

// Hex is a number as a string of hexadecimal digits.
type Hex uint64

// MarshalText writes the digits.
func (h Hex) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, uint64(h), 16), nil }

// UnmarshalText reads them.
func (h *Hex) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("not a hexadecimal number: %.40q", text)
	}
	*h = Hex(v)
	return nil
}

// Operations.
const (
	OpOpen    = "open"
	OpAdd     = "add"
	OpRemove  = "remove"
	OpStart   = "start"
	OpHarvest = "harvest"
	OpMore    = "more"
	OpStop    = "stop"
	OpClose   = "close"
	OpList    = "list"
)

// Request is what a client asks for.
type Request struct {
	ID         uint64  `json:"id"`
	Op         string  `json:"op"`
	Session    uint64  `json:"session,omitempty"`
	PID        int     `json:"pid,omitempty"` // open
	Mode       uint8   `json:"mode,omitempty"`
	CountBytes bool    `json:"count_bytes,omitempty"`
	Follow     uint8   `json:"follow,omitempty"`
	Ranges     []Range `json:"ranges,omitempty"` // add, remove
}

// Range is bytes of the tracked process.
type Range struct {
	Address Hex `json:"address"`
	Bytes   Hex `json:"bytes"`
}

// Response is the answer.
type Response struct {
	ID       uint64    `json:"id"`
	Session  uint64    `json:"session,omitempty"` // open
	Report   *Report   `json:"report,omitempty"`  // harvest, more
	Sessions []Session `json:"sessions,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// Report is one part of a report.
type Report struct {
	Pages   []Page `json:"pages"`
	Present int    `json:"present"`
	More    bool   `json:"more,omitempty"`
}

// Page is one page of it.
type Page struct {
	Address      Hex    `json:"address"`
	Lines        Hex    `json:"lines"`
	ChangedBytes uint32 `json:"changed_bytes,omitempty"`
	Flags        uint8  `json:"flags,omitempty"`
}

// Session is one of all sessions, for root.
type Session struct {
	Session uint64 `json:"session"`
	UID     uint32 `json:"uid"` // of the client
	Client  int    `json:"client"`
	PID     int    `json:"pid"` // tracked
	Started bool   `json:"started"`
}

// Code is what a client may act on.
type Code string

// The codes.
const (
	BadRequest Code = "bad_request"
	Permission Code = "permission"
	Limit      Code = "limit"
	Gone       Code = "gone"
	BadRange   Code = "bad_range"
	NotMapped  Code = "not_mapped"
	State      Code = "state"
	NoSpace    Code = "no_space"
	Failed     Code = "failed"
)

// Error is a refusal.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

var (
	errTooLong = errors.New("the line is too long")
	errNoJSON  = errors.New("not a message")
)

// Reader reads messages of bounded length.
type Reader struct{ lines *bufio.Scanner }

// NewReader reads lines of at most maxBytes.
func NewReader(r io.Reader, maxBytes int) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxBytes)
	return &Reader{s}
}

// Next decodes the next line into message, io.EOF at the end. After an error nothing more can be read.
func (r *Reader) Next(message any) error {
	if !r.lines.Scan() {
		switch err := r.lines.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			return errTooLong
		case err != nil:
			return err
		}
		return io.EOF
	}
	if err := json.Unmarshal(r.lines.Bytes(), message); err != nil {
		return fmt.Errorf("%w: %w", errNoJSON, err)
	}
	return nil
}

// NextRequest is Next with the checks that do not depend on who asks.
func (r *Reader) NextRequest() (Request, error) {
	var q Request
	if err := r.Next(&q); err != nil {
		return q, err
	}
	if len(q.Ranges) > MaxRanges {
		return q, fmt.Errorf("%w: %d ranges, at most %d", errNoJSON, len(q.Ranges), MaxRanges)
	}
	return q, nil
}

// Malformed says whether an error of a Reader is about what was sent, not about the connection.
func Malformed(err error) bool { return errors.Is(err, errTooLong) || errors.Is(err, errNoJSON) }

// Write sends one message.
func Write(w io.Writer, message any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
