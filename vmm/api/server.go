package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	maxBodyBytes   = 64 << 10
	maxHeaderBytes = 16 << 10

	// A client sends its header at once; who does not may be a migration that took this socket for a
	// destination, and should learn so soon.
	headerTimeout = 2 * time.Second
	readTimeout   = 10 * time.Second // for a whole request
	writeTimeout  = 10 * time.Second // for an answer, and for each line of a stream
	idleTimeout   = 60 * time.Second
)

// ServerConfig names the VMM to clients.
type ServerConfig struct {
	ID      string // of the instance
	Version string // of the VMM
	Log     logrus.FieldLogger
}

// Server serves a Session over HTTP.
type Server struct {
	cfg     ServerConfig
	session *Session
	http    *http.Server

	closeOnce sync.Once
	closing   chan struct{} // ends the streams
	tracks    chan struct{} // holds a token of each stream of windows

	lineTimeout time.Duration // for a client to take a line of a stream
}

// NewServer returns a server; Serve makes it answer.
func NewServer(session *Session, cfg ServerConfig) *Server {
	s := &Server{
		cfg: cfg, session: session, closing: make(chan struct{}),
		tracks: make(chan struct{}, maxTracks), lineTimeout: writeTimeout,
	}
	w := &logWriter{cfg.Log}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		// One operation and a wait for another's turn lie between reading and writing.
		WriteTimeout:   2*OperationTimeout + writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       stdlog.New(w, "", 0),
	}
	return s
}

// logWriter gives net/http's own complaints to logrus, one line each.
type logWriter struct{ log logrus.FieldLogger }

func (w *logWriter) Write(p []byte) (int, error) {
	w.log.Warnf("api: %s", p)
	return len(p), nil
}

// Serve answers on l until Shutdown, which makes it return nil. It closes l.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// Shutdown closes the listener, ends the streams and waits, as long as ctx allows, for the
// requests under way: the client that asked for the stop gets its answer.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeOnce.Do(func() { close(s.closing) })
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut the API down: %w", err), s.http.Close())
	}
	return nil
}

// Handler returns the routes without a socket.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	// From here on a read serves to notice that the client has gone, however long that takes.
	setDeadline(http.NewResponseController(w).SetReadDeadline, time.Time{})
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			err = fmt.Errorf("the body has more than %d bytes", maxBodyBytes)
		}
		fault(w, err)
		return
	}
	if r.Method == http.MethodGet && len(body) > 0 {
		fault(w, errors.New("a GET request takes no body"))
		return
	}
	if r.Method == http.MethodGet && r.URL.Path == pathMigrationEvents {
		s.stream(w, r)
		return
	}
	if r.Method == http.MethodPost && r.URL.Path == pathTrack {
		s.track(w, r, body)
		return
	}
	methods, ok := routes[r.URL.Path]
	if !ok {
		fault(w, fmt.Errorf("fineline does not serve %.128q", r.URL.Path))
		return
	}
	handle, ok := methods[r.Method]
	if !ok {
		fault(w, fmt.Errorf("fineline does not serve %.16q on %s", r.Method, r.URL.Path))
		return
	}
	reply, err := handle(s, r.Context(), body)
	if err != nil {
		fault(w, err)
		return
	}
	if reply == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, http.StatusOK, reply)
}

// stream sends a migration's events as JSON lines until the final one.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	f := s.session.watch()
	if f == nil {
		fault(w, errors.New("no migration has been started"))
		return
	}
	out, err := s.openStream(w)
	for seen, final := uint64(0), false; err == nil && !final; {
		var line []byte
		if line, seen, final, err = f.next(r.Context(), s.closing, seen); err == nil {
			err = out.write(line)
		}
	}
	if err == nil { // else the client has gone, or sees a stream without its final line
		f.finalTold()
	}
}

// setDeadline ignores a failure: a connection that takes no deadline is gone, and the next
// read or write on it says so.
func setDeadline(set func(time.Time) error, t time.Time) { _ = set(t) }

// fault answers 400, Firecracker's status for everything that fails.
func fault(w http.ResponseWriter, err error) {
	body := faultBody{FaultMessage: err.Error()}
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		body.Result, _ = json.Marshal(refused.Result) // our own type; without it the message is what counts
	}
	answer(w, http.StatusBadRequest, body)
}

func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // our own types always encode: a bug, shown to whoever meets it
		status, body = http.StatusBadRequest, []byte(`{"fault_message":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that has gone needs no answer
}
