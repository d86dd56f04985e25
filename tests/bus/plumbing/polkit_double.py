"""polkitd as a template of python-dbusmock: it answers as told, and says what it was asked.

The signals Checked (the whole question, as JSON) and Cancelled (a check that was taken back) tell.

A double, because the real one answers "challenge" and prompts only with logind, a session and an
agent behind it, and never hangs. The template that comes with python-dbusmock does neither.
"""

import json

import dbus
from dbusmock import MOCK_IFACE

BUS_NAME = "org.freedesktop.PolicyKit1"
MAIN_OBJ = "/org/freedesktop/PolicyKit1/Authority"
MAIN_IFACE = "org.freedesktop.PolicyKit1.Authority"
SYSTEM_BUS = True

INTERACTIVE = 1


def load(mock, parameters):
    mock.verdict = "deny"
    mock.hanging = {}
    mock.held = []


@dbus.service.method(MOCK_IFACE, in_signature="s")
def SetVerdict(self, verdict):
    """allow, deny, challenge (and the password is right), dismiss, hang, hold, refuse or fail."""
    self.verdict = verdict


@dbus.service.method(MOCK_IFACE)
def Release(self):
    """Allow every check that is held."""
    while self.held:
        self.held.pop()((True, False, dbus.Dictionary({}, signature="ss")))


@dbus.service.method(
    MAIN_IFACE,
    in_signature="(sa{sv})sa{ss}us",
    out_signature="(bba{ss})",
    async_callbacks=("answer", "refuse"),
)
def CheckAuthorization(self, subject, action, details, flags, cancellation, answer, refuse):
    interactive = bool(flags & INTERACTIVE)
    none = dbus.Dictionary({}, signature="ss")
    if self.verdict == "hang":
        self.hanging[cancellation] = refuse
    elif self.verdict == "hold":
        self.held.append(answer)
    elif self.verdict == "refuse":
        name = "org.freedesktop.PolicyKit1.Error.NotAuthorized"
        refuse(dbus.DBusException("Only trusted callers can pass details", name=name))
    elif self.verdict == "fail":
        name = "org.freedesktop.PolicyKit1.Error.Failed"
        refuse(dbus.DBusException(f"Action {action} is not registered", name=name))
    elif self.verdict == "challenge":
        answer((interactive, not interactive, none))
    elif self.verdict == "nobody-to-ask":
        answer((False, True, none))
    elif self.verdict == "dismiss":
        answer((False, False, {"polkit.dismissed": "true"}))
    else:
        answer((self.verdict == "allow", False, none))
    question = [subject[0], dict(subject[1]), action, dict(details), flags, cancellation]
    self.EmitSignal(MOCK_IFACE, "Checked", "s", [json.dumps(question)])


@dbus.service.method(MAIN_IFACE, in_signature="s")
def CancelCheckAuthorization(self, cancellation):
    refuse = self.hanging.pop(cancellation)
    name = "org.freedesktop.PolicyKit1.Error.Cancelled"
    refuse(dbus.DBusException("Authentication was cancelled", name=name))
    self.EmitSignal(MOCK_IFACE, "Cancelled", "s", [cancellation])
