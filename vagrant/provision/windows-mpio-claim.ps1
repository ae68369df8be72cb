# Has multipath I/O (MPIO) take the disks of Plexus, by what they say of themselves in INQUIRY (src/daemon/identity-draft.ts).
# It holds after a restart, which Vagrant does; then windows-initiator.ps1 follows.
$ErrorActionPreference = 'Stop'
$vendor = 'PLEXUS'
$product = 'iSCSI Disk'

# Without the blanks that fill the fields of INQUIRY: the cmdlet adds them itself.
$claimed = Get-MSDSMSupportedHW | Where-Object { $_.VendorId.Trim() -eq $vendor -and $_.ProductId.Trim() -eq $product }
if (-not $claimed) {
    New-MSDSMSupportedHW -VendorId $vendor -ProductId $product
}
Get-MSDSMSupportedHW | Format-Table -Property 'VendorId', 'ProductId'
