// SPDX-License-Identifier: GPL-2.0-or-later
//
// A module for FRR's bgpd: how long best-path selection waits for more changes before it runs. bgpd holds each run for
// 50 ms and has no command for it. Copyright (C) the Kedge authors.
//
// This program is free software; you can redistribute it and/or modify it under the terms of the GNU General Public
// License as published by the Free Software Foundation; either version 2 of the License, or (at your option) any later
// version. It comes without any warranty; see COPYING beside this file.
//
//   bgpd -M /usr/local/lib/kedge/kedge_bgpd_hold.so[:MILLISECONDS]
//
// MILLISECONDS (0 to 1000) holds for all instances, those made later too; without it nothing changes. In one instance,
// from bgpd's own vty or bgpd.conf:
//
//   router bgp 65000
//    bgp bestpath hold (0-1000)
//    no bgp bestpath hold
//
// vtysh has its commands compiled in and does not know this one. `show work-queues bgpd`, which it knows, shows the
// hold of each instance. The module reaches into bgpd's own structures: on another bgpd than the one that it was built
// for it says so in the log and leaves everything as it is. docs/bgpd-hold.md.

#include <zebra.h>

#include "bgpd/bgpd.h"
#include "lib/command.h"
#include "lib/libfrr.h"
#include "lib/linklist.h"
#include "lib/log.h"
#include "lib/memory.h"
#include "lib/module.h"
#include "lib/qobj.h"
#include "lib/version.h"
#include "lib/vty.h"
#include "lib/workqueue.h"

enum {
  STOCK_HOLD_MS = 50,  // bgp_process_queue_init()
  MAX_HOLD_MS = 1000,
};

DEFINE_MGROUP(KEDGE_HOLD, "Kedge best-path hold");
DEFINE_MTYPE_STATIC(KEDGE_HOLD, KEDGE_HOLD_OVERRIDE, "Kedge best-path hold of an instance");

// An instance with a hold of its own.
struct hold_override {
  struct hold_override* next;
  const struct bgp* bgp;
  unsigned int hold_ms;
};

static struct hold_override* overrides;
static unsigned int default_hold_ms = STOCK_HOLD_MS;

static struct hold_override** find(const struct bgp* bgp) {
  struct hold_override** place = &overrides;
  while (*place != NULL && (*place)->bgp != bgp) {
    place = &(*place)->next;
  }
  return place;
}

static void apply(struct bgp* bgp) {
  const struct hold_override* own = *find(bgp);
  if (bgp->process_queue != NULL) {
    bgp->process_queue->spec.hold = own != NULL ? own->hold_ms : default_hold_ms;
  }
}

static void forget(const struct bgp* bgp) {
  struct hold_override** place = find(bgp);
  struct hold_override* own = *place;
  if (own != NULL) {
    *place = own->next;
    XFREE(MTYPE_KEDGE_HOLD_OVERRIDE, own);
  }
}

DEFUN(bgp_bestpath_hold, bgp_bestpath_hold_cmd, "bgp bestpath hold (0-1000)",
      "BGP specific commands\n"
      "Change the default bestpath selection\n"
      "How long a run waits for more changes\n"
      "Milliseconds\n") {
  VTY_DECLVAR_CONTEXT(bgp, bgp);
  struct hold_override** place = find(bgp);
  if (*place == NULL) {
    *place = XCALLOC(MTYPE_KEDGE_HOLD_OVERRIDE, sizeof(**place));
    (*place)->bgp = bgp;
  }
  (*place)->hold_ms = strtoul(argv[3]->arg, NULL, 10);
  apply(bgp);
  return CMD_SUCCESS;
}

DEFUN(no_bgp_bestpath_hold, no_bgp_bestpath_hold_cmd, "no bgp bestpath hold [(0-1000)]",
      NO_STR
      "BGP specific commands\n"
      "Change the default bestpath selection\n"
      "How long a run waits for more changes\n"
      "Milliseconds\n") {
  VTY_DECLVAR_CONTEXT(bgp, bgp);
  forget(bgp);
  apply(bgp);
  return CMD_SUCCESS;
}

// Not for vtysh: it could not read the line back from frr.conf, and frr-reload could not remove it.
static int write_config(struct bgp* bgp, struct vty* vty) {
  const struct hold_override* own = *find(bgp);
  if (own != NULL && vty->type != VTY_SHELL_SERV) {
    vty_out(vty, " bgp bestpath hold %u\n", own->hold_ms);
  }
  return 0;
}

static int on_instance_deleted(struct bgp* bgp) {
  forget(bgp);
  return 0;
}

// bgpd has no hook for a new instance. Each of those below comes before a neighbour can have heard of anything in it.
static void apply_to_all(void) {
  struct listnode* node;
  struct bgp* bgp;
  for (ALL_LIST_ELEMENTS_RO(bm->bgp, node, bgp)) {
    apply(bgp);
  }
}

static int on_config_read(struct thread_master* master) {
  (void)master;
  apply_to_all();
  return 0;
}

static int on_config_end(struct bgp* bgp) {
  apply(bgp);
  return 0;
}

static int on_peer_changed(struct peer* peer) {
  (void)peer;
  apply_to_all();
  return 0;
}

static int on_vrf_changed(struct bgp* bgp, struct interface* interface) {
  (void)interface;
  apply(bgp);
  return 0;
}

// Whether bgpd and libfrr are of the version whose headers this was compiled with, and lay their structures out in the
// same way: each names the offset of one of the last members of these.
static const char* unfit(void) {
  bool seen = false;
  for (const struct frrmod_runtime* part = frrmod_list; part != NULL; part = part->next) {
    const char* name = part->info->name;
    if (strcmp(name, "bgpd") != 0 && strcmp(name, "libfrr") != 0) {
      continue;
    }
    seen = seen || strcmp(name, "bgpd") == 0;
    if (part->info->version == NULL || strcmp(part->info->version, THIS_MODULE->info->version) != 0) {
      return "it is another version";
    }
  }
  if (!seen) {
    return "it is not bgpd";
  }
  if (qobj_t_bgp.node_member_offset != (ptrdiff_t)offsetof(struct bgp, qobj_node) ||
      qobj_t_bgp_master.node_member_offset != (ptrdiff_t)offsetof(struct bgp_master, qobj_node)) {
    return "it was built with other options";
  }
  return NULL;
}

static bool read_option(const char* text) {
  char* end = NULL;
  unsigned long value;
  if (text == NULL) {
    return true;
  }
  value = strtoul(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != '\0' || value > MAX_HOLD_MS) {
    return false;
  }
  default_hold_ms = value;
  return true;
}

// Not before: now there is a log, and there are bgpd's commands.
static int start(struct thread_master* master) {
  (void)master;
  const char* why = unfit();
  if (why != NULL) {
    zlog_err(
        "kedge_bgpd_hold: built for bgpd %s; this one does not fit: %s. Best-path selection is held for %d ms, as "
        "without the module. "
        "Build it again: make setup",
        THIS_MODULE->info->version, why, STOCK_HOLD_MS);
    return 0;
  }
  if (!read_option(THIS_MODULE->load_args)) {
    zlog_err(
        "kedge_bgpd_hold: '%s' is no number from 0 to %d (milliseconds), in -M %s. Best-path selection is held for %d "
        "ms, as without it",
        THIS_MODULE->load_args, MAX_HOLD_MS, THIS_MODULE->load_name, STOCK_HOLD_MS);
  }
  install_element(BGP_NODE, &bgp_bestpath_hold_cmd);
  install_element(BGP_NODE, &no_bgp_bestpath_hold_cmd);
  hook_register(bgp_inst_config_write, write_config);
  hook_register(bgp_inst_delete, on_instance_deleted);
  hook_register(frr_config_post, on_config_read);
  hook_register(bgp_config_end, on_config_end);
  hook_register(peer_status_changed, on_peer_changed);
  hook_register(bgp_vrf_status_changed, on_vrf_changed);
  zlog_info("kedge_bgpd_hold: best-path selection is held for %u ms (bgpd's own: %d ms)", default_hold_ms,
            STOCK_HOLD_MS);
  return 0;
}

static int load(void) {
  hook_register(frr_late_init, start);
  return 0;
}

FRR_MODULE_SETUP(.name = "kedge_bgpd_hold", .version = FRR_VERSION,
                 .description = "bgpd's wait before best-path selection", .init = load, );
