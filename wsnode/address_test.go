package wsnode

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/etcdmap"
)

// moving is a machine whose only address changes.
type moving struct {
	mu sync.Mutex
	ip net.IP // guarded by mu; nil while it has none
}

func (m *moving) to(ip net.IP) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ip = ip
}

func (m *moving) Has(ip net.IP) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ip.Equal(ip), nil
}

func (m *moving) Toward(context.Context, string) (net.IP, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ip == nil {
		return nil, errBroken
	}
	return m.ip, nil
}

func TestNodePublishesTheAddressThatItsMachineHasNow(t *testing.T) {
	m := &moving{ip: net.IPv4(127, 0, 0, 2)}
	b := prepare(t, func(c *Config) { c.Listen = ":0" })
	b.n.doors.machine = m
	b.ready()
	_, port, err := net.SplitHostPort(b.n.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	at := func(host string, draining bool) func(*etcdmap.Picture) bool {
		return func(p *etcdmap.Picture) bool {
			n := p.Nodes["n1"]
			return n.Addr == net.JoinHostPort(host, port) && n.Instance == b.n.Instance() && n.Draining == draining
		}
	}
	b.until("the node is where it began", at("127.0.0.2", false))

	m.to(nil)
	b.n.readdress(t.Context())
	if got := b.n.Addr(); got != net.JoinHostPort("127.0.0.2", port) {
		t.Errorf("a machine without any address makes the node say %s", got)
	}
	m.to(net.IPv4(127, 0, 0, 3))
	b.n.readdress(t.Context())
	b.until("the node is somewhere else", at("127.0.0.3", false))

	b.n.draining.Store(true)
	m.to(net.IPv4(127, 0, 0, 4))
	b.n.readdress(t.Context())
	b.until("the node moved while it drains, and still does", at("127.0.0.4", true))
}

func TestAddressesThatAreSaidAreNotFollowed(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"advertised":       func(c *Config) { c.Listen, c.Advertise = ":0", "node-1:9080" },
		"of one interface": func(*Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, change)
			b.n.doors.machine = &moving{ip: net.IPv4(127, 0, 0, 2)}
			b.ready()
			if addr, derived := b.n.advertised(t.Context()); derived || addr != b.n.Addr() {
				t.Errorf("%s is taken for derived: %v", addr, derived)
			}
		})
	}
}

func TestThisMachineHasItsAddresses(t *testing.T) {
	m := thisMachine{}
	ip, err := m.Toward(t.Context(), "127.0.0.1:2379")
	if err != nil || !ip.IsLoopback() {
		t.Fatalf("the way to 127.0.0.1 begins at %v, %v", ip, err)
	}
	if has, err := m.Has(ip); !has || err != nil {
		t.Errorf("has %v: %v, %v", ip, has, err)
	}
	if has, err := m.Has(net.IPv4(192, 0, 2, 1)); has || err != nil {
		t.Errorf("has an address for examples: %v, %v", has, err)
	}
}
