package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// load is what the flags say.
type load struct {
	address string
	order   string
	keys    int
	value   int
	rounds  int
	seed    uint64
}

func main() {
	var l load
	flag.StringVar(&l.address, "address", "127.0.0.1:6379", "of the server")
	flag.StringVar(&l.order, "order", "sequential", "of the keys: sequential or random")
	flag.IntVar(&l.keys, "keys", 10000, "number of keys")
	flag.IntVar(&l.value, "value", 64, "bytes of a value")
	flag.IntVar(&l.rounds, "rounds", 0, "how often as many keys are set (0: until it is killed)")
	flag.Uint64Var(&l.seed, "seed", 1, "of the random order")
	flag.Parse()
	if flag.NArg() > 0 || (l.order != "sequential" && l.order != "random") || l.keys < 1 || l.value < 1 || l.rounds < 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	sets, err := l.run(ctx)
	fmt.Printf("redisload order=%s keys=%d value=%d seed=%d sets=%d\n", l.order, l.keys, l.value, l.seed, sets)
	if err != nil {
		fmt.Fprintln(os.Stderr, "redisload:", err)
		os.Exit(1)
	}
}

func (l load) run(ctx context.Context) (sets int, err error) {
	conn, err := connect(ctx, l.address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	rng := rand.New(rand.NewPCG(l.seed, 0))
	for round := 0; l.rounds == 0 || round < l.rounds; round++ {
		n, err := l.round(ctx, conn, rng, round)
		sets += n
		if err != nil || ctx.Err() != nil {
			return sets, err
		}
	}
	return sets, nil
}

// connect waits for the server to listen.
func connect(ctx context.Context, address string) (net.Conn, error) {
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil || !errors.Is(err, unix.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// pipeline is how many requests are sent before their answers are read.
const pipeline = 64

// round sets as many keys as there are.
func (l load) round(ctx context.Context, conn net.Conn, rng *rand.Rand, round int) (sets int, err error) {
	replies := bufio.NewReader(conn)
	for from := 0; from < l.keys && ctx.Err() == nil; from += pipeline {
		n := min(pipeline, l.keys-from)
		var requests strings.Builder
		for i := range n {
			key := from + i
			if l.order == "random" {
				key = rng.IntN(l.keys)
			}
			l.set(&requests, key, round)
		}
		if _, err := io.WriteString(conn, requests.String()); err != nil {
			return sets, err
		}
		for range n {
			reply, err := replies.ReadString('\n')
			if err != nil {
				return sets, err
			}
			if reply != "+OK\r\n" {
				return sets, fmt.Errorf("the server says %q", reply)
			}
			sets++
		}
	}
	return sets, nil
}

// set writes one request. All bytes of a value change with the round.
func (l load) set(w *strings.Builder, key, round int) {
	name := fmt.Sprintf("key:%08d", key)
	value := strings.Repeat(string(rune('a'+(key+round)%26)), l.value)
	fmt.Fprintf(w, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(name), name, len(value), value)
}
