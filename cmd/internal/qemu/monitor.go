package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// maxMessageBytes bounds one line of QMP.
const maxMessageBytes = 1 << 20

// Event is one of QMP's asynchronous events.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
	// Timestamp is the host's real-time clock.
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// Time is when the event happened.
func (e Event) Time() time.Time {
	return time.Unix(e.Timestamp.Seconds, e.Timestamp.Microseconds*int64(time.Microsecond))
}

// message is any line that QEMU sends.
type message struct {
	Event
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// Monitor is a QMP connection, for one goroutine at a time.
type Monitor struct {
	conn     net.Conn
	messages chan message // closed when the connection has ended, readErr says why
	readErr  error
	quit     chan struct{}
	events   []Event // met while waiting for an answer
}

// NewMonitor greets QEMU on conn, which Close closes.
func NewMonitor(ctx context.Context, conn net.Conn) (*Monitor, error) {
	m := &Monitor{conn: conn, messages: make(chan message), quit: make(chan struct{})}
	go m.read()
	greeting, err := m.next(ctx)
	if err == nil && greeting.Greeting == nil {
		err = errors.New("the peer does not greet as QEMU does")
	}
	if err == nil {
		err = m.Execute(ctx, "qmp_capabilities", nil, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("QMP: %w", err), m.Close())
	}
	return m, nil
}

func (m *Monitor) read() {
	defer close(m.messages)
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(nil, maxMessageBytes)
	for lines.Scan() {
		var msg message
		if m.readErr = json.Unmarshal(lines.Bytes(), &msg); m.readErr != nil {
			return
		}
		select {
		case m.messages <- msg:
		case <-m.quit:
			return
		}
	}
	if m.readErr = lines.Err(); m.readErr == nil {
		m.readErr = errors.New("QEMU has closed the connection")
	}
}

func (m *Monitor) next(ctx context.Context) (message, error) {
	select {
	case msg, ok := <-m.messages:
		if !ok {
			return msg, m.readErr
		}
		return msg, nil
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
}

// Execute runs one command and decodes its answer into result unless that is nil. After an
// end of ctx the connection is out of step: close it.
func (m *Monitor) Execute(ctx context.Context, command string, arguments, result any) error {
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		msg, err := m.next(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("QMP %s: %w", command, err)
		case msg.Error != nil:
			return fmt.Errorf("QMP %s: %s", command, msg.Error.Desc)
		case msg.Name != "":
			m.events = append(m.events, msg.Event)
		case result == nil:
			return nil
		default:
			if err := json.Unmarshal(msg.Return, result); err != nil {
				return fmt.Errorf("QMP %s: %w", command, err)
			}
			return nil
		}
	}
}

// Await returns the next event.
func (m *Monitor) Await(ctx context.Context) (Event, error) {
	if len(m.events) > 0 {
		e := m.events[0]
		m.events = m.events[1:]
		return e, nil
	}
	for {
		msg, err := m.next(ctx)
		if err != nil || msg.Name != "" {
			return msg.Event, err
		}
	}
}

// Close ends the connection, not QEMU.
func (m *Monitor) Close() error {
	close(m.quit)
	return m.conn.Close()
}
