package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/devices/socket"
)

const (
	// clientTimeout outlasts the server's own bound, so that its answer wins.
	clientTimeout = 2*OperationTimeout + writeTimeout
	maxReplyBytes = 1 << 20
	maxLineBytes  = 4 << 20 // of a stream: a migration's result names every round
)

// ErrStreamCut ends a stream whose final line did not come: the VMM has gone or shuts down.
var ErrStreamCut = errors.New("the VMM has gone, or ended the stream before its last line")

// Fault is a request that the VMM refused.
type Fault struct {
	Status  int // of HTTP
	Message string
	Result  json.RawMessage // of a migration that ended in its preflight; else nil
}

func (f *Fault) Error() string { return f.Message }

// Client talks to a Server. Safe for concurrent use.
type Client struct {
	http *http.Client
	path string
}

// NewClient does not connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if err := socket.CheckPath(path); err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: dial,
		// A kept connection that the server has just closed fails a PUT, which net/http does
		// not send again; a new one costs microseconds here.
		DisableKeepAlives: true,
	}}}
}

// Info asks who and how the VMM is.
func (c *Client) Info(ctx context.Context) (InstanceInfo, error) {
	return get[InstanceInfo](ctx, c, pathInstance)
}

// VMConfig asks for the machine's shape and what it boots.
func (c *Client) VMConfig(ctx context.Context) (VMConfig, error) {
	return get[VMConfig](ctx, c, pathVMConfig)
}

// Metrics asks for the counters of the machine's devices, as JSON.
func (c *Client) Metrics(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, pathMetrics)
}

// Pause returns when no vCPU runs.
func (c *Client) Pause(ctx context.Context) error {
	return c.send(ctx, http.MethodPatch, pathVM, vmBody{vmPaused})
}

// Resume lets the guest run.
func (c *Client) Resume(ctx context.Context) error {
	return c.send(ctx, http.MethodPatch, pathVM, vmBody{vmResumed})
}

// Stop asks the VMM to end; it may still run when this returns.
func (c *Client) Stop(ctx context.Context) error {
	return c.send(ctx, http.MethodPut, pathStop, emptyBody{})
}

// StartMigration returns when the migration is under way, or with the refusal: a *Fault with the Result, if the migration
// was begun at all.
func (c *Client) StartMigration(ctx context.Context, r MigrationRequest) error {
	return c.send(ctx, http.MethodPut, pathMigration, r)
}

// Migration asks how the latest migration is, as JSON; a *Fault if there was none.
func (c *Client) Migration(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, pathMigration)
}

// RecoverMigration returns when a post-copy is connected anew, or with why it is not.
func (c *Client) RecoverMigration(ctx context.Context, r RecoverRequest) error {
	return c.send(ctx, http.MethodPut, pathMigrationRecover, r)
}

// CancelMigration returns when the guest is back at the source.
func (c *Client) CancelMigration(ctx context.Context) error {
	return c.send(ctx, http.MethodPut, pathMigrationCancel, emptyBody{})
}

// ResolveMigration ends a doubt.
func (c *Client) ResolveMigration(ctx context.Context, d Decision) error {
	return c.send(ctx, http.MethodPut, pathMigrationResolve, resolveBody{d})
}

// MigrationEvents yields the latest progress as it changes and ends after the final event. An
// error, ErrStreamCut among them, comes last.
func (c *Client) MigrationEvents(ctx context.Context) iter.Seq2[MigrationEvent, error] {
	return events(ctx, c, http.MethodGet, pathMigrationEvents, nil, func(ev MigrationEvent) bool { return ev.Final })
}

// Track yields a window after the other, and the final event. An error, ErrStreamCut among
// them, comes last.
func (c *Client) Track(ctx context.Context, r TrackRequest) iter.Seq2[TrackEvent, error] {
	return events(ctx, c, http.MethodPost, pathTrack, r, func(ev TrackEvent) bool { return ev.Final })
}

// events reads a stream of JSON lines up to the final one.
func events[T any](ctx context.Context, c *Client, method, path string, body any, final func(T) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		resp, err := c.do(ctx, method, path, body)
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, maxLineBytes)
		for lines.Scan() {
			var ev T
			if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
				yield(none, fmt.Errorf("stream of %s: %w", path, err))
				return
			}
			if !yield(ev, nil) || final(ev) {
				return
			}
		}
		switch {
		case ctx.Err() != nil:
			yield(none, ctx.Err())
		case errors.Is(lines.Err(), bufio.ErrTooLong):
			yield(none, fmt.Errorf("stream of %s: %w", path, lines.Err()))
		default:
			yield(none, ErrStreamCut)
		}
	}
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return v, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReplyBytes)).Decode(&v); err != nil {
		return v, fmt.Errorf("GET %s: %w", path, err)
	}
	return v, nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// do returns an answer of the 200s, whose body the caller closes.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var encoded io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		encoded = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://fineline"+path, encoded)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var f faultBody
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxReplyBytes)).Decode(&f); err != nil || f.FaultMessage == "" {
		f.FaultMessage = fmt.Sprintf("%s %s: the VMM answered %s", method, path, resp.Status)
	}
	return nil, &Fault{Status: resp.StatusCode, Message: f.FaultMessage, Result: f.Result}
}

// explain turns a failure to connect into what the user can do about it.
func (c *Client) explain(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the request, of which the user knows nothing
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no API socket at %s: no VMM was started with it, or it has ended, as one does whose guest has moved; "+
			"start one with fineline run --api %[1]s: %w", c.path, err)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s: the VMM has gone and could not clean up; start another with fineline run --api %[1]s: %w", c.path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission for %s: the VMM belongs to another user: %w", c.path, err)
	}
	return fmt.Errorf("ask the VMM at %s: %w", c.path, err)
}
