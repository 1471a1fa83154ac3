// Package realkafka runs Apache Kafka itself, one broker in KRaft mode, from the jars that integration/kafka's
// pom names. It needs Java 17 and, to fetch the jars once, Maven.
package realkafka

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// Fetch returns a folder with the jars that the pom asks for; it fetches them when work does not hold them yet.
// Several processes may call it at once.
func Fetch(ctx context.Context, pom, work string) (string, error) {
	text, err := os.ReadFile(pom)
	if err != nil {
		return "", fmt.Errorf("fetch Kafka: %w", err)
	}
	// Maven reads a relative name from the pom's folder.
	if work, err = filepath.Abs(work); err != nil {
		return "", fmt.Errorf("fetch Kafka: %w", err)
	}
	sum := sha256.Sum256(text)
	dir := filepath.Join(work, "kafka-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", fmt.Errorf("fetch Kafka: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(work, "kafka.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("fetch Kafka: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("fetch Kafka: lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("fetch Kafka: Maven is needed once (Debian: apt-get install maven): %w", err)
	}
	// A fetch that breaks off must not look like a whole one: the name is given at the end.
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", fmt.Errorf("fetch Kafka: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+part)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Kafka: mvn: %w\n%s", err, out)
	}
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("fetch Kafka: %w", err)
	}
	return dir, nil
}

// Config says how the broker runs.
type Config struct {
	Jars       string   // folder, from Fetch
	Dir        string   // data, configuration and log; kept between Stop and Start
	Addr       string   // host:port for clients
	Controller string   // host:port for the broker's own controller
	Heap       string   // Java's -Xmx; empty means 512m
	Properties []string // more lines of server.properties; the last of two that name the same counts
	Format     []string // more arguments for the tool that formats the storage
}

// Broker is one Kafka broker. Its methods may be called from several goroutines.
type Broker struct {
	cfg  Config
	java string

	mu   sync.Mutex
	proc *procs.Process // guarded by mu; nil when stopped
}

// New formats the broker's storage. Start runs it.
func New(ctx context.Context, cfg Config) (*Broker, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("run Kafka: Java 17 is needed (Debian: apt-get install openjdk-17-jre-headless): %w", err)
	}
	if cfg.Heap == "" {
		cfg.Heap = "512m"
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("run Kafka: %w", err)
	}
	b := &Broker{cfg: cfg, java: java}
	if err := os.WriteFile(b.properties(), []byte(serverProperties(cfg)), 0o644); err != nil {
		return nil, fmt.Errorf("run Kafka: %w", err)
	}
	cmd := exec.CommandContext(ctx, java, "-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", b.classpath(),
		"kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted", "--cluster-id", "pointsman-test-cluster", "--config", b.properties())
	cmd.Args = append(cmd.Args, cfg.Format...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format Kafka's storage: %w\n%s", err, out)
	}
	return b, nil
}

func (b *Broker) properties() string { return filepath.Join(b.cfg.Dir, "server.properties") }
func (b *Broker) classpath() string  { return filepath.Join(b.cfg.Jars, "*") }

func serverProperties(cfg Config) string {
	lines := []string{
		"process.roles=broker,controller",
		"node.id=1",
		"listeners=PLAINTEXT://" + cfg.Addr + ",CONTROLLER://" + cfg.Controller,
		"advertised.listeners=PLAINTEXT://" + cfg.Addr,
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=PLAINTEXT",
		"controller.quorum.bootstrap.servers=" + cfg.Controller,
		"log.dirs=" + filepath.Join(cfg.Dir, "data"),
		// One broker: every internal topic has one replica.
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=4",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"share.coordinator.state.topic.num.partitions=1",
		"group.initial.rebalance.delay.ms=0",
		// A killed broker may register again only when its old session has ended: 9 s by default.
		"broker.session.timeout.ms=2000",
		"broker.heartbeat.interval.ms=500",
		"auto.create.topics.enable=false",
		// Every ten and fifteen seconds by default: tests wait for both.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms=1000",
		"log.cleaner.backoff.ms=250",
	}
	return strings.Join(append(lines, cfg.Properties...), "\n") + "\n"
}

// Addr is host:port for clients.
func (b *Broker) Addr() string { return b.cfg.Addr }

// Log is the path of the broker's log.
func (b *Broker) Log() string { return filepath.Join(b.cfg.Dir, "kafka.log") }

// Start runs the broker and returns when it serves clients.
func (b *Broker) Start(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc != nil && b.proc.Running() {
		return errors.New("start Kafka: it runs already")
	}
	p, err := procs.Start(procs.Spec{
		Name: "kafka", Path: b.java, Dir: b.cfg.Dir, Log: b.Log(),
		Args: []string{"-Xmx" + b.cfg.Heap, "-Xms" + b.cfg.Heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
			"-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", b.classpath(), "kafka.Kafka", b.properties()},
	})
	if err != nil {
		return err
	}
	b.proc = p
	// The broker opens its port only when it has caught up with its controller's metadata.
	return p.WaitTCP(ctx, b.cfg.Addr)
}

// Stop ends the broker in order and keeps its data.
func (b *Broker) Stop(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc == nil || !b.proc.Running() {
		return nil
	}
	return b.proc.Terminate(ctx) // Java exits with 143 after SIGTERM
}

// Kill ends the broker without a word.
func (b *Broker) Kill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proc == nil {
		return nil
	}
	return b.proc.Kill()
}

// Process is the broker's process, nil before the first Start.
func (b *Broker) Process() *procs.Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proc
}
