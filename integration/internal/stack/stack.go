// Package stack runs a whole Pointsman: a Kafka, an etcd, routers and nodes, behind one interface, so that one
// scenario body runs in one process, over real processes, and over a real Kafka and a real etcd.
package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrUnsupported is what a Stack answers to a fault that its kind cannot make; a scenario skips that fault and
// says so.
var ErrUnsupported = errors.New("this kind of stack cannot do that")

// Kind says what a Stack is made of.
type Kind string

// The kinds, from the fastest to the truest. POINTSMAN_STACK names one of them.
const (
	// InProcess runs everything as goroutines of the calling process: kfake, an embedded etcd, router.New and
	// wsnode.New. The race detector sees all of it.
	InProcess Kind = "inprocess"
	// Processes runs bin/router and bin/wsnode as OS processes with real signals, over kfake and an embedded
	// etcd in the calling process.
	Processes Kind = "processes"
	// Real runs bin/router and bin/wsnode over Apache Kafka in KRaft mode and an etcd binary, every one of them
	// an OS process with real signals.
	Real Kind = "real"
	// Secured is Real with everything between programs behind TLS: Kafka with SASL (SCRAM-SHA-512) and access lists,
	// etcd with client certificates, links with certificates of both ends and a token.
	Secured Kind = "secured"
	// External runs bin/router and bin/wsnode over a Kafka and an etcd that somebody else runs
	// (Options.KafkaAddrs, Options.EtcdAddrs).
	External Kind = "external"
	// Compose runs the containers of deploy/compose.yaml: images that `make images` built, or that the
	// environment names.
	Compose Kind = "compose"
	// Existing is a whole stack that somebody else runs (Options.RouterURLs, Options.KafkaAddrs); nothing in it can be
	// started or stopped from here.
	Existing Kind = "existing"
)

// KindFromEnv is the kind that POINTSMAN_STACK asks for, InProcess when it is not set.
func KindFromEnv() (Kind, error) {
	switch k := Kind(os.Getenv("POINTSMAN_STACK")); k {
	case "":
		return InProcess, nil
	case InProcess, Processes, Real, Secured, External, Compose:
		return k, nil
	default:
		return "", fmt.Errorf("POINTSMAN_STACK=%s: want %s, %s, %s, %s, %s or %s", k, InProcess, Processes, Real, Secured, External, Compose)
	}
}

// Options says what to start. The zero value is one router, two nodes and a topic of eight partitions.
type Options struct {
	Routers    int    // how many routers; 0 means 1
	Nodes      int    // how many nodes; 0 means 2, negative means none
	Partitions int32  // of the topic; 0 means 8
	Topic      string // empty means "records"; it is created when it does not exist
	EtcdPrefix string // empty means "/pointsman"

	// TopicConfig is for the topic's creation, for example {"retention.ms": "3600000"}.
	TopicConfig map[string]string

	// WellKnown takes the ports that README's commands name, each where it is free: 9092 for Kafka, 2379 for etcd,
	// 8080 and 8081 for the first router, 8082 and 8083 for the second.
	WellKnown bool

	// Bridged puts every node behind a bridge that Breakable can cut and hold still. It needs a kind that runs
	// processes.
	Bridged bool

	// RouterFlags and NodeFlags are added to the command lines, for example "--heartbeat=1s".
	RouterFlags []string
	NodeFlags   []string

	// Fault is POINTSMAN_FAULT of every router and node; it needs programs built with the tag pointsman_faults
	// and so a kind that runs processes.
	Fault string

	// Bin is the folder with router and wsnode. Empty means POINTSMAN_BIN, else a fresh build.
	Bin string

	// Dir receives data and logs. Empty means a temporary folder that Close removes.
	Dir string

	// KafkaAddrs and EtcdAddrs belong to External.
	KafkaAddrs []string
	EtcdAddrs  []string

	// RouterURLs ("ws://host:8080") and KafkaAddrs belong to Existing; RouterAdmins ("http://host:8081") as well, one
	// for each router or none.
	RouterURLs   []string
	RouterAdmins []string

	// Logf tells what happens to the stack, one line an event. Nil means silence.
	Logf func(format string, args ...any)
}

// Node is one running node.
type Node struct {
	ID    string
	Admin string // http base URL
	Addr  string // host:port that routers dial
	PID   int    // 0 in process
	Log   string // path of its log
	Ended string // how it ended without being asked to; empty while it runs
}

// Router is one router. Its place in Routers and its addresses survive a restart.
type Router struct {
	Name  string
	URL   string // ws base URL, without path: "ws://127.0.0.1:8080"
	Admin string // http base URL
	PID   int    // 0 in process, or when it does not run
	Log   string
	Ended string // how it ended without being asked to; empty while it runs, or is stopped
}

// Stack is a running Pointsman. Its methods may be called from several goroutines. Every method that takes a
// context returns when what it says has happened, not when it was asked for.
type Stack interface {
	Kind() Kind
	Topic() string
	Partitions() int32
	EtcdPrefix() string
	Kafka() []string // broker addresses
	Etcd() []string  // client endpoints, host:port
	Routers() []Router
	Nodes() []Node // those that run, frozen ones too, in order of their start

	// AddNode starts one more node and returns when it is ready: its claims are readable. With an error the node is
	// the one that did not get ready, if there is one.
	AddNode(ctx context.Context) (Node, error)
	// DrainNode asks a node to stop in order (SIGTERM) and returns when it has gone.
	DrainNode(ctx context.Context, id string) error
	// KillNode ends a node without a word (SIGKILL) and returns when it has gone.
	KillNode(ctx context.Context, id string) error
	// FreezeNode stops a node where it stands (SIGSTOP): its sockets stay open and silent. ThawNode ends that.
	// In one process only the node's links can be held still.
	FreezeNode(ctx context.Context, id string) error
	ThawNode(ctx context.Context, id string) error

	// KillRouter ends router i without a word; StopRouter in order. StartRouter brings it back on the same
	// addresses and returns when it is ready.
	KillRouter(ctx context.Context, i int) error
	StopRouter(ctx context.Context, i int) error
	StartRouter(ctx context.Context, i int) error
	// FreezeRouter and ThawRouter are SIGSTOP and SIGCONT.
	FreezeRouter(ctx context.Context, i int) error
	ThawRouter(ctx context.Context, i int) error

	// StopEtcd ends etcd and keeps its data; StartEtcd brings it back on the same address. WipeEtcd loses its
	// data, and it is running again on return.
	StopEtcd(ctx context.Context) error
	StartEtcd(ctx context.Context) error
	WipeEtcd(ctx context.Context) error

	// StopKafka ends the broker and keeps its data; StartKafka brings it back on the same address.
	StopKafka(ctx context.Context) error
	StartKafka(ctx context.Context) error

	// Dir holds logs and data.
	Dir() string
	// Close ends everything that the stack started. No process is left when it returns.
	Close() error
}

// Freeze holds a node still for d.
func Freeze(ctx context.Context, s Stack, id string, d time.Duration) error {
	if err := s.FreezeNode(ctx, id); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	// A frozen process outlives a cancelled test otherwise.
	return errors.Join(ctx.Err(), s.ThawNode(context.WithoutCancel(ctx), id))
}

// RestartRouter stops router i in order and starts it again.
func RestartRouter(ctx context.Context, s Stack, i int) error {
	if err := s.StopRouter(ctx, i); err != nil {
		return err
	}
	return s.StartRouter(ctx, i)
}

// TB is the part of testing.TB that Start needs.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
	Failed() bool
}
