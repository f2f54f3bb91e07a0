"""Stands in for `lspci` and XRT's `xbutil` of a host with VCK5000 cards. As in the vendor's sources (Xilinx/XRT):

- every leaf of the JSON is a string; temperatures that cannot be read are "0" with is_present "false"; power may be "N/A";
- `xbutil` takes the address of the user function, needs --output with --format, and refuses to write over a file;
- a report that fails leaves its part out, and the status is 1 though the file is written; `host` needs no device, the others do;
- `validate` loads an xclbin of its own: here it ends the test by a mark in the state file's folder.

    python host_programs.py STATE.json lspci|xbutil ARGUMENTS...

STATE.json: {"cards": [{"slot": "0000:3b:00", "serial", "shell", "celsius", "watts", "user": "5049", "management": "5048",
"user_driver", "management_driver", "firmware", "firmware_expected", "ready", "fails": [reports], "hangs": seconds}], "xrt": version}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

CARD = {
    "user": "5049", "management": "5048", "user_driver": "xocl", "management_driver": "xclmgmt", "serial": "XFL1RT5PHT31",
    "shell": "xilinx_vck5000_gen4x8_qdma_base_2", "firmware": "4.4.35", "firmware_expected": "4.4.35", "ready": "true",
    "celsius": "45", "watts": "38.500000", "fails": [], "hangs": 0,
}  # fmt: skip


def lspci(state, arguments):
    if "-vmm" not in arguments or "-n" not in arguments:
        sys.exit("lspci: the stand-in knows the machine-readable form alone")
    for card in state["cards"]:
        for function, kind in ((0, "management"), (1, "user")):
            if card[kind]:
                driver = card[kind + "_driver"]
                lines = [
                    f"Slot:\t{card['slot']}.{function}",
                    "Class:\t1200",
                    "Vendor:\t10ee",
                    "Device:\t" + card[kind],
                ]
                lines += ["SVendor:\t10ee", "SDevice:\t000e", "ProgIf:\t00"]
                lines += ["Driver:\t" + driver, "Module:\t" + driver] if driver else []
                sys.stdout.write("\n".join([*lines, "NUMANode:\t0", "IOMMUGroup:\t7"]) + "\n\n")
    if state.get("stranger"):
        sys.stdout.write("Slot:\t0000:af:00.0\nClass:\t0580\nVendor:\t10ee\nDevice:\t7038\n\n")


def option(arguments, name):
    """The words after an option, up to the next one."""
    if name not in arguments:
        return []
    words = []
    for word in arguments[arguments.index(name) + 1 :]:
        if word.startswith("--"):
            break
        words.append(word)
    return words


def thermals(card):
    rows = [("PCB Top Front", "0"), ("VCCINT Temp", "41"), ("Device", card["celsius"])]
    return [
        {
            "location_id": name,
            "description": name,
            "temp_C": heat,
            "is_present": "false" if heat in ("0", "N/A") else "true",
        }
        for name, heat in rows
    ]


def electrical(card):
    volts = {"volts": "11.985000", "max": "12.004000", "average": "11.985000", "is_present": "true"}
    amps = {"amps": "1.744000", "max": "2.116000", "average": "1.746000", "is_present": "true"}
    rails = [{"id": "12v_pex", "description": "12v_pex", "voltage": volts, "current": amps}]
    return {
        "power_rails": rails, "power_consumption_watts": card["watts"], "power_consumption_max_watts": "225",
        "power_consumption_warning": "N/A",
    }  # fmt: skip


def platforms(card):
    controller = {
        "satellite_controller": {"version": card["firmware"], "expected_version": card["firmware_expected"]},
        "card_mgmt_controller": {"version": "", "serial_number": card["serial"], "oem_id": "N/A"},
    }
    region = {"vbnv": card["shell"], "jtag_idcode": "0x14ca8093", "fpga_name": "N/A"}
    return [{"static_region": region, "status": {"p2p_status": "disabled"}, "controller": controller, "macs": ""}]


def host(state):
    drivers = [{"name": "xocl", "version": "2.14.354, 43926231"}, {"name": "xclmgmt", "version": "2.14.354, 43926231"}]
    xrt = {
        "version": state.get("xrt", "2.14.354"),
        "branch": "2022.2",
        "hash": "43926231",
        "drivers": state.get("drivers", drivers),
    }
    devices = [
        {
            "bdf": card["slot"] + ".1",
            "vbnv": card["shell"],
            "id": "0x0",
            "instance": f"user(inst={128 + at})",
            "is_ready": card["ready"],
        }
        for at, card in enumerate(state["cards"])
        if card["user"] and card["user_driver"]
    ]
    return {"os": {"sysname": "Linux", "release": "5.15.0-91-generic"}, "xrt": xrt, "devices": devices or ""}


def xbutil(state, arguments, folder):
    if arguments[:1] == ["validate"]:
        (folder / "validated").write_text("an xclbin was loaded under load")
        sys.exit("ERROR: validate was called")
    output, reports, device = (
        option(arguments, "--output"),
        option(arguments, "--report"),
        option(arguments, "--device"),
    )
    if arguments[:1] != ["examine"] or option(arguments, "--format") != ["JSON"] or not output:
        sys.exit("ERROR: Please specify an output file to redirect the json to")
    if Path(output[0]).exists():
        sys.exit(f"ERROR: The output file '{output[0]}' already exists.")
    report, status = {"schema_version": {"schema": "JSON", "creation_date": "Tue Jan 10 10:00:00 2023"}}, 0
    if "host" in reports:
        report["system"] = {"host": host(state)}
    else:
        found = [card for card in state["cards"] if [card["slot"] + ".1"] == device]
        if not found:
            sys.exit(f"ERROR: Specified device BDF '{' '.join(device)}' not found")
        card = found[0]
        time.sleep(card["hangs"])
        parts = {
            "thermal": ("thermals", thermals),
            "electrical": ("electrical", electrical),
            "platform": ("platforms", platforms),
        }
        about = {"interface_type": "pcie", "device_id": device[0], "device_status": "HEALTHY"}
        for name in reports:
            if name in card["fails"]:
                status = 1
            else:
                about[parts[name][0]] = parts[name][1](card)
        report["devices"] = [about]
    Path(output[0]).write_text(json.dumps(report, indent=4))
    sys.stdout.write(f"Successfully wrote the JSON file: {output[0]}\n")
    sys.exit(status)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    told = json.loads(path.read_text())
    told["cards"] = [dict(CARD, **card) for card in told["cards"]]
    if sys.argv[2] == "lspci":
        lspci(told, sys.argv[3:])
    else:
        xbutil(told, sys.argv[3:], path.parent)
