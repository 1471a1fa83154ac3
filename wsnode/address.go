package wsnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"go.uber.org/zap"
)

// addressEvery is how often a node looks whether its machine still has the address that it publishes.
const addressEvery = 2 * time.Second

// machine is what a node asks of the machine that it runs on.
type machine interface {
	// Has reports whether an interface has the address.
	Has(ip net.IP) (bool, error)
	// Toward is the machine's own address on the way to host:port.
	Toward(ctx context.Context, target string) (net.IP, error)
}

type thisMachine struct{}

func (thisMachine) Has(ip net.IP) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if own, ok := a.(*net.IPNet); ok && own.IP.Equal(ip) {
			return true, nil
		}
	}
	return false, nil
}

func (thisMachine) Toward(ctx context.Context, target string) (net.IP, error) {
	// No packet is sent: connecting a datagram socket only chooses the route.
	conn, err := (&net.Dialer{Timeout: addressEvery}).DialContext(ctx, "udp", target)
	if err != nil {
		return nil, fmt.Errorf("find the way to %s: %w", target, err)
	}
	defer func() { _ = conn.Close() }()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil, errors.New("this machine has no address")
	}
	return local.IP, nil
}

// advertised is the address that routers dial. A listener on all interfaces has none of its own: then it is
// the one from which this machine reaches etcd, because routers reach etcd too.
func (n *Node) advertised(ctx context.Context) (addr string, derived bool) {
	if n.cfg.Advertise != "" {
		return n.cfg.Advertise, false
	}
	host, port, err := net.SplitHostPort(n.listener.Addr().String())
	if err != nil {
		return n.listener.Addr().String(), false
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return net.JoinHostPort(host, port), false
	}
	if ip, err := n.doors.machine.Toward(ctx, endpointHost(n.cfg.Etcd[0])); err == nil {
		return net.JoinHostPort(ip.String(), port), true
	}
	if name, err := os.Hostname(); err == nil {
		return net.JoinHostPort(name, port), true
	}
	return net.JoinHostPort("127.0.0.1", port), true
}

// followAddress publishes the machine's new address when it has lost the one that is published: a lease of DHCP that
// was not renewed, a container that came back to its network, a virtual machine that was moved.
func (n *Node) followAddress(ctx context.Context) error {
	t := time.NewTicker(addressEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			n.readdress(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// readdress does nothing while the machine has the address, whatever others it has: routers are linked by it. Nor does it
// while there is no way to etcd: it would be told nothing better.
func (n *Node) readdress(ctx context.Context) {
	old := n.Addr()
	host, port, err := net.SplitHostPort(old)
	if err != nil {
		return
	}
	if ip := net.ParseIP(host); ip != nil {
		if has, err := n.doors.machine.Has(ip); has || err != nil {
			return
		}
	}
	ip, err := n.doors.machine.Toward(ctx, endpointHost(n.cfg.Etcd[0]))
	if err != nil {
		return
	}
	addr := net.JoinHostPort(ip.String(), port)
	if addr == old {
		return
	}
	n.addr.Store(&addr)
	n.log.Warn("this machine's address has changed", zap.String("addr", addr), zap.String("before", old))
	n.publish()
}

// publish tells etcd what this node is now.
func (n *Node) publish() {
	// Of two at the same time the later one must not write what the earlier one has read.
	n.publishing.Lock()
	defer n.publishing.Unlock()
	n.publisher.SetNode(n.value(n.draining.Load()))
}
